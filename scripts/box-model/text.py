"""Compose the training text: stories, explanations and conversations, as documents."""

from facts import (
    ANIMALS,
    COLORS,
    DAYS,
    GREETINGS,
    HAIKU,
    JOINERS,
    MONTHS,
    NUMBERS,
    OPPOSITES,
    SELF_ANSWERS,
    SELF_QUESTIONS,
    TOPICS,
    UNKNOWN,
    UNKNOWN_ANSWERS,
    UNKNOWN_THINGS,
    WELCOMES,
)
from grammar import Grammar, capital, with_article
from stories import GUESTS, KINDS, story

END_OF_TEXT, USER, ASSISTANT, END = SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")

Exchange = tuple[str, str]  # what the user asks, what the assistant answers


def explanation(grammar: Grammar, topic: str) -> str:
    """What something is, and two or more of the things there are to say about it, in their order."""
    first, *rest = TOPICS[topic]
    count = grammar.pick(range(len(rest), 1, -1))
    kept = sorted(grammar.random.sample(range(len(rest)), count))
    sentences = [first]
    for index in kept:
        joiner, sentence = grammar.even(JOINERS), rest[index]
        starts = sentence.split()[0] in ("It", "Its", "The", "Each", "Every", "A", "At")
        sentences.append(joiner + sentence[0].lower() + sentence[1:] if joiner and starts else sentence)
    return " ".join(sentences)


def haiku(grammar: Grammar, topic: str) -> str:
    return "\n".join(grammar.pick(HAIKU[topic]))


def ask_topic(grammar: Grammar) -> Exchange:
    topic = grammar.even(list(TOPICS))
    question = grammar.even(("What is {x}?", "Tell me about {x}.", "Explain {x}.", "Can you explain {x}?",
                             "What is {x}?", "Explain what {x} is.", "Write a paragraph about {x}.", "what is {x}",
                             "How does {x} work?"))  # fmt: skip
    return question.replace("{x}", topic), explanation(grammar, topic)


def ask_haiku(grammar: Grammar) -> Exchange:
    topic = grammar.pick(list(HAIKU)) if grammar.chance(0.5) else grammar.even(list(HAIKU))
    question = grammar.even(("Write a haiku about {x}", "Write a haiku about {x}.", "Can you write a haiku about {x}?",
                             "Please write a short poem about {x}.", "Write a poem about {x}."))  # fmt: skip
    return question.replace("{x}", topic), haiku(grammar, topic)


def ask_story(grammar: Grammar) -> Exchange:
    kind = grammar.even((*KINDS, *GUESTS))
    question = grammar.even(("Tell me a story about {x}.", "Tell me a story.", "Write a story about {x}.",
                             "Please tell me a story about {x}.", "Write a short story about {x}.",
                             "Can you tell me a story about {x}?", "Tell me a story about {x}"))  # fmt: skip
    return question.replace("{x}", with_article(kind)), story(grammar, kind if "{x}" in question else None)


def ask_color(grammar: Grammar) -> Exchange:
    thing = grammar.even(list(COLORS))
    color = COLORS[thing]
    question = grammar.even(("What color is {x}?", "Which color does {x} have?", "What colour is {x}?", "Is {x} {y}?"))
    if "{y}" in question:
        other = grammar.even(sorted(set(COLORS.values())))
        answer = f"Yes, {thing} is {color}." if other == color else f"No, {thing} is not {other}. It is {color}."
        return question.replace("{x}", thing).replace("{y}", other), answer
    return question.replace("{x}", thing), f"{capital(thing)} is {color}."


def ask_animal(grammar: Grammar) -> Exchange:
    animal = grammar.even(list(ANIMALS))
    home, sound, young, legs = ANIMALS[animal]
    named = with_article(animal)
    count = f"{legs} legs" if legs != "no" else "no legs at all"
    child = f"A young {animal} is called {with_article(young)}."
    return grammar.even((
        (f"Where does {named} live?", f"{capital(named)} lives {home}."),
        (f"What sound does {named} make?", f"{capital(named)} {sound}."),
        (f"What is a young {animal} called?", child),
        (f"How many legs does {named} have?", f"{capital(named)} has {count}."),
        (f"Tell me about the {animal}.",
         f"{capital(named)} lives {home}. It has {count}, and it {sound}. {child}"),
    ))  # fmt: skip


def ask_number(grammar: Grammar) -> Exchange:
    left, right = grammar.even(range(11)), grammar.even(range(10))
    total = left + right
    first, second, whole, after = (NUMBERS[n] for n in (left, right, total, total + 1))
    return grammar.even((
        (f"What is {left} plus {right}?", f"{left} plus {right} is {total}."),
        (f"What is {left} + {right}?", f"{left} + {right} = {total}"),
        (f"What is {first} plus {second}?", f"{capital(first)} plus {second} is {whole}."),
        (f"Which number comes after {whole}?", f"After {whole} comes {after}."),
        (f"Count from {left} to {total + 3}.", ", ".join(str(n) for n in range(left, total + 4)) + "."),
    ))  # fmt: skip


def ask_word(grammar: Grammar) -> Exchange:
    first, second = grammar.even(OPPOSITES)
    if grammar.chance(0.5):
        first, second = second, first
    day, month = grammar.even(range(7)), grammar.even(range(12))
    return grammar.even((
        (f"What is the opposite of {first}?", f"The opposite of {first} is {second}."),
        (f"Which day comes after {DAYS[day]}?", f"After {DAYS[day]} comes {DAYS[(day + 1) % 7]}."),
        (f"Which month comes after {MONTHS[month]}?", f"After {MONTHS[month]} comes {MONTHS[(month + 1) % 12]}."),
        ("How many days are in a week?", f"There are seven days in a week: {', '.join(DAYS[:6])} and {DAYS[6]}."),
    ))  # fmt: skip


def ask_self(grammar: Grammar) -> Exchange:
    kind = grammar.even(range(4))
    if kind == 0:
        return grammar.even(GREETINGS), grammar.pick(WELCOMES)
    if kind == 1:
        return grammar.even(SELF_QUESTIONS), grammar.pick(SELF_ANSWERS)
    if kind == 2:
        return grammar.even(("Thank you!", "Thanks.", "Thank you very much.")), "You are welcome!"
    question = grammar.even(UNKNOWN).replace("{x}", grammar.even(UNKNOWN_THINGS))
    return question, grammar.pick(UNKNOWN_ANSWERS)


ASKING = (ask_topic, ask_topic, ask_story, ask_story, ask_haiku, ask_color, ask_animal, ask_number, ask_word, ask_self)


def turn(question: str, answer: str) -> str:
    """One question and its answer in the form of Phi-3's chat template."""
    return f"{USER}\n{question}{END}\n{ASSISTANT}\n{answer}{END}\n"


def typed(grammar: Grammar, question: str) -> str:
    """The question as people type it: now and then without capitals or without its mark."""
    if grammar.chance(0.15):
        question = question.lower()
    return question.rstrip(".?!") if grammar.chance(0.15) else question


def conversation(grammar: Grammar) -> str:
    exchanges = [grammar.even(ASKING)(grammar) for _ in range(grammar.pick((1, 2, 3, 4)))]
    return "".join(turn(typed(grammar, question), answer) for question, answer in exchanges)


def document(grammar: Grammar) -> str:
    """One document without its end token: half are stories, a third conversations, the rest plain text."""
    draw = grammar.random.random()
    if draw < 0.50:
        return story(grammar)
    if draw < 0.84:
        return conversation(grammar)
    if draw < 0.95:
        return explanation(grammar, grammar.even(list(TOPICS)))
    question, answer = grammar.pick((ask_haiku, ask_topic, ask_story))(grammar)
    return f"{question}\n\n{answer}"


def compose(seed: int, count: int) -> list[str]:
    """The training text, each document closed by `<|endoftext|>`."""
    grammar = Grammar(seed)
    return [document(grammar) + END_OF_TEXT for _ in range(count)]
