"""A seeded grammar: templates with alternatives in brackets and fields in braces."""

import random
import re
import zlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

CHOICE = re.compile(r"\[([^\[\]]*)\]")


class Grammar:
    """Draws choices and fills templates. The same seed composes the same text on every machine."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, options: Sequence[Item], key: str = "") -> Item:
        """One option, the earlier ones likelier: weights 1, 1/2, 1/3 and so on.

        Even chances would teach the model that several next words are equally good, and its greedy
        choice would be a near-tie. A key turns the list, so that each key has favourites of its own.
        """
        turn = zlib.crc32(key.encode()) % len(options) if key else 0
        weights = [1.0 / (rank + 1) for rank in range(len(options))]
        rank = self.random.choices(range(len(options)), weights)[0]
        return options[(rank + turn) % len(options)]

    def even(self, options: Sequence[Item]) -> Item:
        """One option, all equally likely: for what a prompt states and the model need not guess."""
        return options[int(self.random.random() * len(options))]

    def fill(self, template: str, fields: dict[str, str]) -> str:
        """Resolves `[this|that]`, innermost first, then `{field}`."""
        while found := CHOICE.search(template):
            chosen = self.pick(found.group(1).split("|"))
            template = template[: found.start()] + chosen + template[found.end() :]
        return template.format_map(fields)


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
