"""
The tokenizer of an encoder: converted once by transformers, stored for a quick start.

transformers knows the tokenizers of all models, but importing it and reading one takes three
seconds. So that happens only when an encoder is fetched. The result is one file for the underlying
tokenizers library, which includes the length to cut at and the padding token.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import tokenizers

from rec_pkg.errors import EncoderInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Tokenizer:
    """
    A stored tokenizer; several threads may use it.

    `padding` is the number of the token that fills up texts shorter than others in their batch.

    Raises:
        EncoderInvalid: if the file holds no tokenizer that `keep_tokenizer` wrote.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            self.padding: int = (self._tokenizer.padding or {})["pad_id"]
        except Exception as error:  # the library raises bare exceptions
            raise EncoderInvalid(f"{path} is not a tokenizer, delete it: {error}") from error
        self._tokenizer.no_padding()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, cut after the encoder's `max_tokens`."""
        return [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts)]


def keep_tokenizer(folder: Path, max_tokens: int, path: Path) -> None:
    """
    Write the tokenizer of the model in `folder` to `path`.

    Raises:
        EncoderInvalid: if there is none, or it accepts fewer tokens than `max_tokens`.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # torch is not needed here
    from transformers import AutoTokenizer  # noqa: PLC0415  # slow, and must follow the line above

    try:
        read = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kept = read.backend_tokenizer
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise EncoderInvalid(f"no tokenizer in {folder}: {error}") from error
    if read.model_max_length < max_tokens:
        raise EncoderInvalid(f"max_tokens is more than the {read.model_max_length} it accepts")
    kept.enable_truncation(max_tokens, direction=read.truncation_side)
    kept.enable_padding(pad_id=read.pad_token_id or 0, pad_token=read.pad_token or "")
    kept.save(str(path))
