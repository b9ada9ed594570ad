"""pgrec: a recommender that lives inside your Postgres."""
