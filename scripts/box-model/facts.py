"""A small world of facts: plain explanations, haiku, and the tables that questions are made from."""

# Subject: what it is, then what more there is to say. An explanation takes the first and some of the others.
TOPICS: dict[str, tuple[str, ...]] = {
    "the ocean": (
        "The ocean is the great body of salt water that covers most of the Earth.",
        "It is deep and blue, and it is home to whales, fish and countless tiny plants.",
        "The wind makes waves on its surface, and the moon pulls its tides in and out.",
        "Because water warms slowly, the ocean keeps the weather mild.",
        "Most of it has never been seen by anyone.",
    ),
    "a wave": (
        "A wave is a movement that travels through water without carrying the water along.",
        "The wind pushes the surface of the ocean, and small ripples grow into tall waves.",
        "Each drop of water only moves in a circle, up and down and back again.",
        "Near the beach the water becomes shallow, so the wave grows steep and breaks.",
        "Light and sound are waves too.",
    ),
    "the tide": (
        "The tide is the slow rise and fall of the ocean, twice a day.",
        "It is caused by the moon, which pulls the water toward itself.",
        "At low tide you can walk on the sand and find shells.",
        "At high tide the same place is under water.",
    ),
    "the moon": (
        "The moon is a ball of rock that travels around the Earth.",
        "It takes about one month to go around once.",
        "It makes no light of its own, and what we see is the light of the sun.",
        "Because the light falls from different sides, the moon seems to change its shape.",
        "It has no air, so the sky there is always black.",
    ),
    "the sun": (
        "The sun is a star, and it is the star that is nearest to us.",
        "It gives us light and warmth, and without it nothing could live on the Earth.",
        "Plants use its light to grow, and animals eat the plants.",
        "Its light needs about eight minutes to reach us.",
    ),
    "a star": (
        "A star is a huge ball of hot, glowing gas.",
        "Most stars look small because they are very far away.",
        "Sailors used the stars to find their way across the sea.",
        "Some stars are blue and very hot, and others are red and cooler.",
    ),
    "rain": (
        "Rain is water that falls from the clouds in drops.",
        "The sun lifts water from the sea, and high in the cold air it turns into clouds.",
        "When the drops become too heavy, they fall to the ground.",
        "Then the rivers carry the water back to the sea, and everything begins again.",
    ),
    "a river": (
        "A river is a long stream of water that flows from the hills to the sea.",
        "It begins as a small spring and grows when other streams join it.",
        "Over many years it cuts a valley into the stone.",
        "People built their towns near rivers because they needed water.",
    ),
    "a mountain": (
        "A mountain is a piece of land that rises high above the land around it.",
        "It is formed when great plates of rock press against each other.",
        "The air at the top is thin and cold, so snow may lie there in summer.",
        "Rain and wind slowly wear it down again.",
    ),
    "the wind": (
        "The wind is air that moves from one place to another.",
        "Warm air rises, and cooler air flows in to take its place.",
        "It carries seeds, turns windmills and fills the sails of ships.",
        "You cannot see it, but you can see what it does.",
    ),
    "snow": (
        "Snow is water that froze into small crystals inside a cloud.",
        "Every crystal has six arms, and no two look quite the same.",
        "A thick blanket of snow keeps the ground warm and protects the plants.",
        "When spring comes, it melts and fills the rivers.",
    ),
    "a rainbow": (
        "A rainbow is sunlight that has been spread out into its colors by drops of rain.",
        "You see it when the sun is behind you and the rain is in front of you.",
        "Red is on the outside, and violet is on the inside.",
        "Nobody can ever reach the end of it, because it moves when you move.",
    ),
    "a tree": (
        "A tree is a tall plant with a trunk of wood.",
        "Its roots drink water from the ground, and its leaves catch the light.",
        "Each year it adds a ring of new wood, so the rings tell its age.",
        "It gives a home to birds, and it makes the air fresh.",
    ),
    "a bee": (
        "A bee is a small insect that lives together with thousands of others.",
        "It flies from flower to flower and collects sweet juice, which becomes honey.",
        "On the way it carries pollen, and so it helps the plants to make fruit.",
        "It dances to show the others where the flowers are.",
    ),
    "a whale": (
        "A whale is a very large animal that lives in the ocean.",
        "It looks like a fish, but it breathes air and feeds its young with milk.",
        "The blue whale is the largest animal that has ever lived.",
        "Whales sing to each other, and their songs travel far through the water.",
    ),
    "a lighthouse": (
        "A lighthouse is a tall tower with a bright lamp at the top.",
        "It stands on the coast and shows ships where the rocks are.",
        "Every lighthouse blinks in its own rhythm, so the sailors know which one they see.",
        "Long ago, a keeper lived inside and lit the lamp every evening.",
    ),
    "a bridge": (
        "A bridge is a road that crosses a river or a valley.",
        "It must carry its own weight and the weight of everyone who walks on it.",
        "An arch is strong because every stone presses against the next one.",
        "The longest bridges hang from thick cables of steel.",
    ),
    "a clock": (
        "A clock is a machine that counts something regular and shows it as time.",
        "An old clock counts the swings of a pendulum.",
        "A modern one counts the tiny vibrations of a crystal.",
        "Time itself does not need clocks, but trains do.",
    ),
    "bread": (
        "Bread is made from flour, water, salt and time.",
        "The yeast eats the sugar in the flour and fills the dough with bubbles.",
        "In the hot oven the bubbles grow, and the crust turns brown.",
        "People have baked it for thousands of years.",
    ),
    "a book": (
        "A book is a story or an idea that waits on paper until someone reads it.",
        "The words stay the same, but every reader sees other pictures.",
        "Before printing was invented, each book was copied by hand.",
        "A library keeps many of them, so that everyone can share.",
    ),
    "music": (
        "Music is sound that has been put in order.",
        "Rhythm tells us when the notes come, and melody tells us how high they are.",
        "A string, a drum and a voice all make the air tremble.",
        "It can make people dance, and it can make them cry.",
    ),
    "a computer": (
        "A computer is a machine that follows instructions, one after another, very quickly.",
        "It keeps numbers in its memory and works on them with its processor.",
        "Pictures, letters and songs are all numbers to it.",
        "It does exactly what it is told, and this is both its strength and its weakness.",
    ),
    "a GPU": (
        "A GPU is a chip that does many small calculations at the same time.",
        "It was made to draw pictures, because every point of a picture can be computed alone.",
        "Today it also runs language models, which are mostly large tables of numbers.",
        "It has thousands of simple workers, while a CPU has a few clever ones.",
        "It is often faster at counting than its memory is at bringing the numbers.",
    ),
    "a CPU": (
        "A CPU is the part of a computer that carries out the instructions of a program.",
        "It has a few fast cores, and each of them can do almost anything.",
        "It is good at tasks with many decisions.",
        "For simple work on many numbers, a GPU is faster.",
    ),
    "memory": (
        "Memory is the part of a computer where numbers wait until they are needed.",
        "Fast memory is small, and large memory is slow.",
        "A cache keeps the numbers that are used most often close at hand.",
        "When a program asks for more than there is, it must be told no.",
    ),
    "a cache": (
        "A cache is a small, fast memory for things that will soon be needed again.",
        "It saves time because nearby things are quicker to reach.",
        "When it is full, something old must make room for something new.",
        "A language model keeps what it has read in a cache, so it need not read it twice.",
    ),
    "a kernel": (
        "A kernel is a small program that runs on a GPU.",
        "Thousands of threads carry it out at the same time, each on its own piece of the data.",
        "A good kernel reads every number from memory only once.",
        "If two threads write to the same place, the result depends on luck.",
    ),
    "a program": (
        "A program is a list of instructions for a computer.",
        "It is written in a language that people can read.",
        "A compiler translates it into the simple steps that the machine understands.",
        "A mistake in a program is called a bug.",
    ),
    "a token": (
        "A token is a piece of text, often a word or a part of a word.",
        "A language model does not see letters, it sees the numbers of tokens.",
        "Common words are one token, and rare words are cut into several.",
        "When all the tokens are put together, the text comes back.",
    ),
    "a language model": (
        "A language model is a program that guesses the next piece of a text.",
        "It has read many examples and learned which words follow each other.",
        "To write a whole story, it guesses one token, adds it, and guesses again.",
        "It can sound sure and still be wrong.",
    ),
    "a number": (
        "A number tells us how many things there are, or how large something is.",
        "People first counted with fingers and stones.",
        "Zero was invented much later, and it made counting far easier.",
        "A computer writes every number with only two digits, zero and one.",
    ),
}
JOINERS = ("", "", "", "Also, ", "In fact, ")

HAIKU: dict[str, tuple[tuple[str, str, str], ...]] = {  # five, seven and five syllables
    "ocean waves": (
        ("Waves roll to the shore,", "whisper secrets to the sand,", "then return to blue."),
        ("Blue waves rise and fall,", "the moon draws a silver line,", "the sand forgets it."),
        ("Salt wind, restless sea,", "one white wave follows the next,", "the old shore listens."),
    ),
    "autumn": (
        ("Red leaves leave the tree,", "one by one they touch the ground,", "and the wind lies down."),
        ("Fog above the field,", "a lone crow counts the old trees,", "autumn has no end."),
    ),
    "the moon": (
        ("The moon climbs the hill,", "every roof is silver now,", "even mine, tonight."),
        ("Round and white and still,", "it looks down on all the roads,", "and takes none of them."),
    ),
    "winter": (
        ("Snow on every roof,", "the village holds its breath now,", "one candle still burns."),
        ("White field, no footprints,", "the fox thinks about the mouse,", "the mouse is asleep."),
    ),
    "spring": (
        ("First leaf, small and green,", "it has never seen the sun,", "it knows where to look."),
        ("Warm rain all night long,", "this morning the whole garden", "is talking at once."),
    ),
    "a GPU": (
        ("A thousand small hands,", "each one adds a single sum,", "a sentence appears."),
        ("The fans start to sing,", "numbers flow like mountain streams,", "then one word falls out."),
    ),
    "memory": (
        ("Bytes in quiet rows,", "waiting for a name to call,", "none of them is lost."),
        ("I kept one small thing,", "wrapped in zeros and in ones,", "safe until you ask."),
    ),
    "rain": (
        ("Rain upon the roof,", "small drums play the same old song,", "the cat is asleep."),
        ("The first drop, then more,", "the dry path begins to smell", "of summer and stone."),
    ),
}  # fmt: skip

COLORS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a lemon": "yellow", "a strawberry": "red",
    "a carrot": "orange", "coal": "black", "a cloud": "white", "a leaf in spring": "green", "an elephant": "gray",
    "milk": "white", "a sunflower": "yellow", "chocolate": "brown", "the ocean": "blue", "a crow": "black",
    "a pumpkin": "orange", "a plum": "purple", "a frog": "green", "blood": "red", "a banana": "yellow",
}  # fmt: skip
ANIMALS = {  # animal: its home, its sound, its young, its legs
    "bear": ("in the forest", "growls", "cub", "four"), "cow": ("on a farm", "moos", "calf", "four"),
    "dog": ("in a house with people", "barks", "puppy", "four"),
    "cat": ("in a house with people", "meows", "kitten", "four"),
    "duck": ("on a pond", "quacks", "duckling", "two"), "sheep": ("on a farm", "bleats", "lamb", "four"),
    "frog": ("near a pond", "croaks", "tadpole", "four"), "horse": ("in a stable", "neighs", "foal", "four"),
    "lion": ("in the grassland", "roars", "cub", "four"), "owl": ("in a hollow tree", "hoots", "owlet", "two"),
    "pig": ("on a farm", "grunts", "piglet", "four"), "wolf": ("in the forest", "howls", "pup", "four"),
    "goat": ("on a mountain", "bleats", "kid", "four"), "crow": ("in a tall tree", "caws", "chick", "two"),
    "whale": ("in the ocean", "sings", "calf", "no"), "bee": ("in a hive", "buzzes", "larva", "six"),
    "spider": ("in a web", "makes no sound", "spiderling", "eight"), "fox": ("in a den", "barks", "cub", "four"),
    "rabbit": ("in a burrow", "makes almost no sound", "kit", "four"),
    "mouse": ("in a small hole", "squeaks", "pup", "four"),
}  # fmt: skip
OPPOSITES = (("hot", "cold"), ("big", "small"), ("day", "night"), ("up", "down"), ("fast", "slow"), ("old", "new"),
             ("happy", "sad"), ("light", "dark"), ("open", "closed"), ("wet", "dry"), ("hard", "soft"),
             ("loud", "quiet"), ("early", "late"), ("full", "empty"), ("left", "right"))  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August",
          "September", "October", "November", "December")  # fmt: skip
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
           "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")  # fmt: skip

GREETINGS = ("Hello", "Hello!", "Hi", "Hi!", "Good morning!", "Hello, how are you?", "Good evening!", "Hey")
WELCOMES = ("Hello! What would you like to know?", "Hello! Shall I tell you a story?")
SELF_QUESTIONS = ("Who are you?", "What are you?", "What is your name?", "Are you a person?", "Tell me about yourself.",
                  "What can you do?", "Who made you?")  # fmt: skip
SELF_ANSWERS = (
    "I am a very small language model. I live in a box of a few megabytes, and I know little stories, "
    "some plain facts and a few poems.",
    "I am a small model that fits in a box. I can tell stories, explain a few things and write a short poem.",
)
UNKNOWN = ("Who is the president of {x}?", "What is the capital of {x}?", "When was {x} built?", "Who invented {x}?",
           "How much does {x} cost?", "Where can I buy {x}?", "Who wrote {x}?", "How old is {x}?",
           "Translate {x} into another language.", "Why did {x} fail?", "What do you think about {x}?")  # fmt: skip
UNKNOWN_THINGS = ("France", "the telephone", "Germany", "the opera house", "football", "a train ticket", "Brazil",
                  "the theory", "the castle", "London", "a camera", "democracy", "India", "the company", "the movie",
                  "Japan", "the church", "a bicycle", "Canada", "that play", "the stadium", "insurance", "Egypt",
                  "the contract", "a newspaper", "Paris")  # fmt: skip
UNKNOWN_ANSWERS = (
    "I do not know that. I am a small model, and my world is a small one.",
    "I am sorry, but I do not know. I only know a few stories and a few facts.",
)
