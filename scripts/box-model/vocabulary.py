"""A byte-level BPE vocabulary in GPT-2's style, trained on the composed text."""

import json
import re
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from text import SPECIAL_TOKENS


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids (bytes, merges, control tokens) and the merges by rank."""

    tokens: list[str]
    merges: list[str]
    tokenizer: Tokenizer

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; control tokens written in the text become their ids."""
        return self.tokenizer.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def learn_vocabulary(documents: list[str], size: int) -> Vocabulary:
    """Learns merges until bytes, merges and control tokens are `size` together."""
    learner = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    control = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
    learner.train_from_iterator((part for document in documents for part in control.split(document)), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    merges = [(left, right) for left, right in learned["merges"]]
    tokenizer = byte_level(models.BPE(vocab=learned["vocab"], merges=merges))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokens.extend(SPECIAL_TOKENS)
    if len(tokens) != size:
        raise ValueError(f"the text gives {len(tokens)} tokens, {size} are wanted")
    return Vocabulary(tokens, [" ".join(pair) for pair in merges], tokenizer)
