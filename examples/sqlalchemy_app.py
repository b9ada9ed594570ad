"""
The recommender beside an application's own SQLAlchemy classes.

    make demo                                            # once: a server and a catalogue
    .venv/bin/python examples/sqlalchemy_app.py 'URL'    # the URL that `pgrec up` prints
"""

from __future__ import annotations

import sys
from typing import ClassVar

from sqlalchemy import create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from rec_pkg import Client, recommend
from rec_pkg.models import Event, Item

USER = "example-sqlalchemy"


class Base(DeclarativeBase):
    """The application's own tables."""


class Product(Base):
    """
    A product of the application; `sku` is the item_id.

    It is temporary only so that the example leaves nothing behind.
    """

    __tablename__ = "products"
    __table_args__: ClassVar = {"prefixes": ["TEMPORARY"]}

    sku: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[float]


def fill(session: Session) -> None:
    """Make a table of products from the films of the sample catalogue."""
    Base.metadata.create_all(session.connection())
    for item in session.scalars(select(Item).where(Item.domain == "film")):
        price = float(item.attributes["price"])
        session.add(Product(sku=item.item_id, name=item.title, price=price))


def show(session: Session, heading: str) -> None:
    """Print a list that is joined with the products and filtered by their price."""
    listed = recommend(USER, 20, domain="film")
    statement = (
        select(Product.name, Product.price, listed.c.score)
        .join(listed, listed.c.item_id == Product.sku)
        .where(Product.price < 5)
        .order_by(listed.c.rank)
        .limit(3)
    )
    print(f"\n{heading}")
    for name, price, score in session.execute(statement):
        print(f"{score:5.2f}  {price:5.2f}  {name}")


def main(url: str) -> None:
    """Track events as objects and as calls; a rollback at the end leaves no trace."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with Session(engine) as session:
        fill(session)
        session.add(Event(user_id=USER, item_id="film-en-001"))
        show(session, "After a click that is not committed")

        inside = Client.on(session)
        inside.track(USER, "film-en-006", kind="dislike")
        show(session, "After a dislike, too")
        for share in inside.explain(USER, "film-en-003")[:2]:
            print(f"{share.share:5.2f}  {share.term}  {share.title or share.text or ''}")
        session.rollback()
    print("\nevents of the user after the rollback:", count(url))
    engine.dispose()


def count(url: str) -> int:
    """Return how many events of the user are stored."""
    with Client(url) as client:
        return len(client.export(USER)["events"])


if __name__ == "__main__":
    main(sys.argv[1])
