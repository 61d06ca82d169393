"""Little stories: a hero, a friend, and one of sixteen plots told in beats."""

from grammar import Grammar, capital, with_article

# fmt: off
KINDS = {  # kind of hero: where one lives
    "fox": "at the edge of the forest",
    "rabbit": "under a green hill",
    "bear": "in a cave near the river",
    "cat": "in a small house by the sea",
    "mouse": "in an old mill",
    "owl": "in a hollow oak tree",
    "duck": "beside a quiet pond",
    "frog": "on the bank of a slow stream",
    "hedgehog": "in a garden behind the school",
    "squirrel": "high up in a pine tree",
    "turtle": "near a warm beach",
    "dog": "on a farm in the valley",
    "girl": "in a village by the sea",
    "boy": "in a town at the foot of a mountain",
}
GUESTS = ("dragon", "king", "queen", "princess", "wizard", "sailor", "farmer", "robot", "giant", "knight", "horse",
          "lion", "elephant", "penguin", "monkey", "pirate", "witch", "baker", "whale", "tiger", "bird", "pig",
          "snail")
GUEST_HOMES = ("in a far country", "on a small island", "in a tall tower", "at the end of a long road")
FRIENDS = ("rabbit", "fox", "owl", "bear", "duck", "mouse", "squirrel", "turtle", "goat", "crow")
NAMES = {
    "she": ("Mia", "Lily", "Anna", "Rosa", "Nora", "Ella", "Ruby", "Clara"),
    "he": ("Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Oscar", "Hugo"),
}
GENDERED = {"girl": "she", "boy": "he", "queen": "she", "king": "he", "princess": "she", "witch": "she"}
PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
NATURES = ("little", "young", "small", "clever", "curious", "shy", "cheerful", "kind", "quiet", "brave")

THINGS = ("red kite", "silver key", "blue scarf", "wooden boat", "small brass bell", "yellow ball", "old map",
          "green lantern", "glass marble", "tin drum")
SPOTS = ("the old bridge", "the big oak tree", "the mill", "the garden wall", "the pond", "the well", "the barn",
         "the stone steps")
FOODS = ("apple pie", "loaf of bread", "bowl of soup", "honey cake", "basket of berries", "pot of porridge")
LOST_ONES = ("baby bird", "little duckling", "tiny kitten", "small beetle", "young lamb")
TRAPS = ("had fallen into a hole", "was caught in a thorny bush", "was stuck between two stones",
         "sat alone on a branch that was too high")
PROJECTS = (
    ("raft", "logs and rope", "The rope broke, and the logs floated apart", "sailed it down the river"),
    ("tree house", "planks and nails", "The floor was crooked, and a plank fell down",
     "sat in it and watched the stars"),
    ("bridge", "branches and stones", "The water was strong and carried the branches away",
     "walked across it hand in hand"),
    ("snow house", "blocks of snow", "The roof was too heavy and fell in", "drank hot tea inside it"),
    ("cart", "a box and four wheels", "One wheel came off and rolled down the hill",
     "rode in it all the way to the village"),
)
SKILLS = (
    ("swim", "sank like a stone", "crossed the whole pond"),
    ("whistle", "made no sound at all", "whistled a song from beginning to end"),
    ("bake bread", "burned the crust", "took a golden loaf out of the oven"),
    ("climb", "slid back down", "reached the highest branch"),
    ("play the drum", "lost the beat", "played a whole march without a mistake"),
    ("skate", "fell on the ice", "made a wide circle on the ice"),
)
FAR_PLACES = (
    ("the sea", "The water was blue and went on forever"),
    ("the top of the mountain", "The whole valley lay below like a map"),
    ("the old lighthouse", "The lamp shone far over the dark water"),
    ("the lake behind the forest", "The water was so clear that every stone could be seen"),
    ("the great waterfall", "The water fell like silver rain"),
)
WONDERS = (
    ("why the moon changes its shape",
     "The sun lights only one side of the moon, and we see more or less of that side"),
    ("where the rain comes from", "The sun lifts water from the sea, the clouds carry it, and then it falls as rain"),
    ("why the leaves fall in autumn", "The tree is getting ready to sleep, and it will make new leaves in spring"),
    ("why the sea is salty", "The rivers carry a little salt from the stones, and the sea keeps it"),
    ("how the bees find their way home", "They remember the sun, the trees and the flowers they pass"),
    ("why stars twinkle", "Their light must pass through moving air before it reaches us"),
)
FEARS = (
    ("the dark", "the dark is only the day with its eyes closed", "the stars came out one by one"),
    ("thunder", "thunder is only the sound of the lightning", "the storm moved slowly away"),
    ("deep water", "the water carries you if you are calm", "the waves rocked them gently"),
    ("high places", "you only need to look at the next step", "the view was wide and bright"),
)
SEEDS = (
    ("bean", "a long green vine", "a basket full of beans"),
    ("sunflower seed", "a tall yellow flower", "more seeds than anyone could count"),
    ("pumpkin seed", "a plant with leaves as big as plates", "a round orange pumpkin"),
    ("apple seed", "a thin little tree", "three sweet apples"),
)
GIFTS = ("warm scarf", "wooden flute", "paper lantern", "book of pictures", "crown of flowers", "small clay cup")

OPENINGS = (
    "Once upon a time, there was a {nature} {kind} named {hero}. {He} lived {home}.",
    "Once upon a time, a {nature} {kind} named {hero} lived {home}.",
    "Once upon a time there was a {nature} {kind} who lived {home}. {His} name was {hero}.",
    "There was once a {nature} {kind} named {hero}, who lived {home}.",
    "{hero} was a {nature} {kind} who lived {home}.",
    "Long ago, a {nature} {kind} lived {home}. Everyone called {him} {hero}.",
    "A {nature} {kind} named {hero} lived {home}.",
)
HABITS = (
    "Every morning {he} walked down to {spot} and [listened to the birds|looked at the clouds|said hello to the wind].",
    "{He} had a good friend, {a_palkind} named {pal}.",
    "{hero} liked [quiet mornings|long walks|warm evenings] and [good stories|fresh bread|the smell of rain].",
    "",
)
CLOSINGS = (
    "",
    "That night {hero} [slept well|slept deeply|fell asleep with a smile].",
    "And from then on, {hero} and {pal} were the best of friends.",
    "It had been a [good|long|happy] day.",
)

# Each plot is a list of beats, each beat the ways to tell it, the likeliest first.
PLOTS: dict[str, list[tuple[str, ...]]] = {
    "lost": [
        ("One day {hero} could not find {his} {thing}.",
         "{hero} had {a_thing} that {he} loved very much. One [windy|cold|sunny] morning it was gone.",
         "One morning {hero} woke up and saw that {his} {thing} was missing."),
        ("{He} looked under the bed, behind the door and in the garden, but it was not there.",
         "{He} searched the whole house [twice|from top to bottom], but {he} found nothing."),
        ("So {he} went to {his} friend {pal} the {palkind} and asked for help.",
         "On the way {he} met {pal} the {palkind} and told {phim} what had happened."),
        ('"Where did you see it last?" asked {pal}.',
         '"Do not worry," said {pal}. "Where were you yesterday?"'),
        ("{hero} thought for a moment and remembered {spot}.",
         '"I was near {spot}," said {hero}.'),
        ("They ran there together, and the {thing} was lying in the [tall grass|soft moss|wet leaves].",
         "Together they walked to {spot}, and there was the {thing}, safe and dry."),
        ("{hero} was so happy that {he} [danced|laughed out loud|jumped into the air].",
         '"Thank you," said {hero}. "Two pairs of eyes see more than one."'),
        ("After that day, {he} always put {his} {thing} back in its place.",
         "Then they played with it until the sun went down."),
    ],
    "rescue": [
        ("One day {hero} heard a soft cry near {spot}.",
         "One afternoon, when {hero} was walking past {spot}, {he} heard a small voice calling for help."),
        ("{A_lost_one} {trap}.",),
        ('"Do not be afraid," said {hero}. "I will help you."',
         "{hero} wanted to help, but {he} could not do it alone."),
        ("{He} ran as fast as {he} could to find {pal} the {palkind}.",
         "{He} called {his} friend {pal} the {palkind}, who came at once."),
        ("{pal} brought a long rope, and {hero} tied it to [a tree|a heavy stone].",
         "{pal} held {him} [tightly|with all {phis} strength], and {hero} reached out as far as {he} could."),
        ("Slowly and carefully, they [pulled|lifted] the {lost_one} out.",
         "It took a long time, but at last the {lost_one} was free."),
        ("The {lost_one} was tired and hungry, so they gave it some [water and berries|warm milk|bread].",
         'The {lost_one} looked up and said, "Thank you for hearing me."'),
        ("In the evening they took it home to its mother, who was very glad.",
         "From that day on, it came to visit them every [spring|Sunday|week]."),
    ],
    "build": [
        ("One day {hero} and {his} friend {pal} the {palkind} decided to build a {project}.",
         '"Let us build a {project}," said {hero} to {his} friend {pal} the {palkind}.'),
        ("They gathered {parts} and worked all morning.",
         "First they made a plan, and then they collected {parts}."),
        ("But something went wrong. {mishap}.",
         "At noon there was trouble. {mishap}."),
        ("{hero} was sad and wanted to give up.",
         '"It will never work," said {hero}.'),
        ('"We have learned something," said {pal}. "Let us try again."',
         'But {pal} smiled and said, "The second one is always better."'),
        ("So they started again, and this time they were [slow and careful|more careful].",
         "They thought about the mistake and found a better way."),
        ("When the sun went down, the {project} was finished.",
         "At the end of the day, the {project} was strong and ready."),
        ("They {use}, and both of them were proud.",
         "The two friends {use}. It was the best {project} in the world."),
    ],
    "storm": [
        ("One evening dark clouds came over the hills, and the wind began to blow.",
         "One day the sky turned gray, and a great storm came."),
        ("The rain fell so hard that {hero} could not see the path.",
         "{hero} ran home through the rain and closed the door."),
        ("Then {he} heard a knock. It was {pal} the {palkind}, wet and cold.",
         "Outside, {he} saw {pal} the {palkind}, who was shaking in the cold."),
        ('"My house has lost its roof," said {pal}. "May I stay here tonight?"',
         '"I have lost my way," said {pal}. "May I come in?"'),
        ('"Of course," said {hero}, and {he} put another log on the fire.',
         '"Come in and sit by the fire," said {hero}.'),
        ("They shared a {food} and told each other stories until the storm was over.",
         "All night the wind howled, but inside it was warm, and they ate a {food}."),
        ("In the morning the sky was clear, and [a rainbow stood over the hills|the birds were singing again].",
         "When the sun came up, the whole world was [clean and bright|shining]."),
        ("{hero} took {his} tools, and together they repaired what the storm had broken.",
         '"A storm is not so bad," said {pal}, "when you have a friend."'),
    ],
    "skill": [
        ("More than anything, {hero} wanted to learn to {skill}.",
         "One day {hero} decided to learn to {skill}."),
        ("The first time {he} tried, {he} {failure}.",
         "{He} tried once, and {he} {failure}."),
        ("{He} tried again the next day, and again it did not work.",
         "The others laughed, and {hero} felt [very small|ashamed]."),
        ("Then {pal} the {palkind} sat down beside {him}.",
         "{His} friend {pal} the {palkind} had seen everything."),
        ('"Nobody can do it at first," said {pal}. "Try a little every day."',
         '"I needed a whole year," said {pal}. "Go slowly, and do not stop."'),
        ("So {hero} practiced every [morning|evening], in the sun and in the rain.",
         "From then on, {hero} practiced a little every day."),
        ("After many weeks, {he} {success}.",
         "One morning in spring, {he} {success}."),
        ('"I did it!" shouted {hero}, and {pal} clapped and cheered.',
         "{pal} was the first to clap, and nobody laughed any more."),
    ],
    "share": [
        ("One day {hero} made {a_food}.",
         "One cold morning {hero} had only {a_food} left to eat."),
        ("It smelled wonderful, and {he} could hardly wait to taste it.",
         "{He} put it on the table and sat down."),
        ("Just then {pal} the {palkind} came to the door, looking tired and hungry.",
         "Through the window {he} saw {pal} the {palkind}, who had walked a long way."),
        ("{hero} looked at the {food}, and then {he} looked at {pal}.",
         "For a moment {hero} was not sure what to do."),
        ('"Sit down," {he} said. "There is enough for two."',
         "Then {he} took a knife and cut everything in two equal parts."),
        ("They ate together, and [it tasted better than ever|they talked until evening].",
         "{pal} ate slowly and smiled after every bite."),
        ("A week later, {hero} found a big basket in front of the door.",
         "The next day, {pal} came back with a basket on {phis} back."),
        ("It was full of [nuts and apples|carrots and honey], and on top lay a note that said thank you.",
         'It was full of fruit. "Now there is enough for two again," said {pal}.'),
    ],
    "journey": [
        ("{hero} had never seen {far}, so one day {he} set out to find it.",
         "One morning {hero} packed a small bag and set out for {far}."),
        ("{His} friend {pal} the {palkind} came along and carried the [bread|water|map].",
         "On the road {he} met {pal} the {palkind}, who wanted to come too."),
        ("They walked through fields and over hills until their feet were tired.",
         "The path was long, and it went up and down and around [many|a hundred] corners."),
        ("When it got dark, they made a fire and slept under the stars.",
         "At night they slept under a tree and listened to the wind."),
        ("On the second day they came to a river, and there was no bridge.",
         "The next morning there was fog, and they could not see the way."),
        ('"Let us wait a little," said {pal}. "A way will show itself."',
         "{hero} took {pal} by the hand, and step by step they went on."),
        ("In the afternoon they came to {far} at last. {sight}.",
         "And then, suddenly, they were there. {sight}."),
        ("{hero} did not say a word for a long time.",
         '"It was worth every step," said {hero}.'),
    ],
    "wonder": [
        ("One night {hero} lay awake and wondered {wonder}.",
         "{hero} asked many questions, and one day {he} wanted to know {wonder}."),
        ("In the morning {he} asked {pal} the {palkind}, but {pal} did not know.",
         "{He} asked {his} friend {pal} the {palkind}. \"I have never thought about it,\" said {pal}."),
        ("So they went together to the old teacher on the hill, who knew [many things|almost everything].",
         "\"Let us ask the old teacher,\" said {pal}, and they climbed the hill together."),
        ("The teacher put down her book and thought for a while.",
         "The teacher poured three cups of tea and looked out of the window."),
        ('"{answer}," she said.',),
        ("{hero} nodded slowly. It was simple, and it was beautiful.",
         '"So that is how it is," said {hero}, and {his} eyes were bright.'),
        ("On the way home, {he} already had a new question.",
         "That evening {he} told the answer to everyone who would listen."),
    ],
    "gift": [
        ("It was almost the birthday of {pal} the {palkind}, and {hero} had no present.",
         "One day {hero} remembered that the next day was the birthday of {pal} the {palkind}."),
        ("{He} had no money, so {he} could not buy anything in the village.",
         "{He} opened {his} purse, but it was empty."),
        ('"Then I will make something," {he} thought.',
         "{He} sat by the window and thought about what {pal} liked."),
        ("{He} worked all night by the light of a candle.",
         "{He} worked for many hours, and {he} made two mistakes, but {he} did not give up."),
        ("In the morning the gift was ready. It was {a_gift}.",
         "When the sun came up, {he} had made {a_gift}."),
        ("{hero} was afraid that it was too [simple|plain|small].",
         "{He} wrapped it in a green leaf and carried it [carefully|proudly] across the meadow."),
        ("But when {pal} saw the {gift}, {phis} eyes began to shine.",
         "{pal} opened the leaf, held up the {gift} and laughed for joy."),
        ('"You made it yourself," said {pal}. "It is the best gift of all."',
         '"I will keep it forever," said {pal}.'),
    ],
    "fear": [
        ("{hero} was not afraid of many things, but {he} was afraid of {fear}.",
         "Nobody knew it, but {hero} was afraid of {fear}."),
        ("One day {he} told {his} secret to {pal} the {palkind}.",
         "One evening {pal} the {palkind} saw that {hero} was trembling."),
        ("{pal} did not laugh.",
         '"I used to feel the same," said {pal}.'),
        ('"My grandmother told me that {comfort}," {phe} said.',
         '"Remember that {comfort}," said {pal}. "And I am here with you."'),
        ("{hero} took a deep breath and held {pal} by the hand.",
         "{hero} counted slowly to ten."),
        ("They waited together, and {relief}.",
         "After a while, {relief}."),
        ("{hero} noticed that {his} heart was calm again.",
         "And then {hero} began to smile."),
        ("{He} was still a little afraid, but now {he} knew what to do.",
         '"It is smaller than I thought," {he} said.'),
    ],
    "garden": [
        ("One day in spring, {hero} found a {seed} and planted it near {spot}.",
         "In spring, {pal} the {palkind} gave {hero} a {seed}."),
        ("{He} gave it water every day and waited.",
         "{He} put it into the dark earth and watered it every morning."),
        ("One week went by, and nothing happened.",
         "For many days there was nothing to see but earth."),
        ('"Maybe it is asleep," said {pal} the {palkind}, who came to look.',
         '"You must be patient," said {pal}. "A seed has its own clock."'),
        ("Then, after a warm night of rain, a small green leaf came out of the ground.",
         "Then one morning there was a tiny green dot."),
        ("It grew and grew, and in summer it was {plant}.",
         "By the middle of summer, it had become {plant}."),
        ("In autumn it gave {harvest}.",
         "When the days became short, it gave {harvest}."),
        ("{hero} and {pal} shared everything, and they kept one seed for the next year.",
         "{hero} invited {pal} to a feast, and they ate until they were full."),
    ],
    "race": [
        ("One day {hero} and {pal} the {palkind} had a race from {spot} to the river.",
         '"I am faster than you," said {pal} the {palkind} to {hero}. "Let us have a race."'),
        ("All the animals came to watch.",
         "The goose counted to three, and off they went."),
        ("{pal} was fast and soon ran far ahead.",
         "{pal} ran like the wind, and {hero} was left behind."),
        ("But {hero} did not stop. {He} ran [steadily|at {his} own speed] and looked straight ahead.",
         "{hero} was slower, but {he} kept going."),
        ("Near the end, {pal} tripped over a root and hurt {phis} foot.",
         "Then {pal} fell into a ditch and could not get out."),
        ("{hero} could have won, but {he} stopped and helped {pal} up.",
         "{hero} saw it, turned around and gave {pal} a hand."),
        ("They crossed the line together, side by side.",
         "Arm in arm, they walked the last few steps."),
        ("Everybody cheered, and there were two winners that day.",
         '"You are the real winner," said {pal}, and {phe} meant it.'),
    ],
    "lamp": [
        ("One night the lamp in the lighthouse went out, and a ship was still at sea.",
         "One stormy night {hero} looked out and saw no light in the lighthouse."),
        ('"The sailors cannot see the rocks," said {hero}.',
         "{hero} knew that a ship was coming home that night."),
        ("{He} took {his} lantern and ran to wake {pal} the {palkind}.",
         "{He} called {pal} the {palkind}, and together they ran through the rain."),
        ("They climbed all the stairs to the top, and there were [one hundred|ninety] of them.",
         "The door was locked, but {pal} knew where the key was hidden."),
        ("The old lamp was broken, so {hero} held up {his} lantern.",
         "{hero} filled the lamp with oil and lit it with a match."),
        ("Far away on the dark water, the ship turned slowly.",
         "The light went out over the waves, and the ship saw it just in time."),
        ("In the morning it lay safe in the harbor.",
         "At sunrise the sailors came ashore, tired but alive."),
        ('The captain shook hands with both of them. "You saved us all," he said.',
         "The captain gave them a small golden bell, and it still hangs by the door."),
    ],
    "star": [
        ("One night a star fell from the sky and landed near {spot}.",
         "One evening {hero} saw something bright near {spot}. It was a fallen star."),
        ("{hero} picked it up. It was warm and very light.",
         "It was no bigger than an apple, and it was crying."),
        ('"I want to go home," said the star, "but I do not know the way."',
         '"I have lost my place in the sky," said the star.'),
        ("{hero} asked {pal} the {palkind} what to do.",
         "{hero} showed it to {his} friend {pal} the {palkind}."),
        ('"We must take it to the highest hill," said {pal}.',
         "{pal} looked up and pointed at a dark gap between two stars."),
        ("They climbed until they could go no higher, and {hero} lifted the star up.",
         "So they carried it up the hill, and it lit the path before them."),
        ("The wind took it gently and carried it back into the sky.",
         "With one great jump, the star flew back to its place."),
        ("Now, every night, one star shines a little brighter over the house of {hero}.",
         "Since then, when {hero} looks up, one star always twinkles back."),
    ],
    "song": [
        ("One day {hero} woke up with a song in {his} head, but {he} did not know how it ended.",
         "{hero} loved to sing, but {he} knew only half of one song."),
        ("{He} sang it to {pal} the {palkind}, who did not know the ending either.",
         "{He} asked {pal} the {palkind}, but {pal} had never heard it."),
        ('"Let us ask the river," said {pal}. "It sings all day."',
         "So they asked everyone they met, from the miller to the goose."),
        ("The river gave them three notes, and the wind gave them two more.",
         "Some knew one note and some knew two."),
        ("{hero} put them all together and sang the song from the beginning.",
         "In the evening {hero} wrote all the notes on a piece of paper."),
        ("And this time it had an ending, soft and clear.",
         "It was longer than before, and it was beautiful."),
        ("{pal} listened with closed eyes.",
         "Everyone who heard it stood still for a moment."),
        ('"Now it belongs to all of us," said {hero}.',
         "Since that day, the whole valley sings it when the sun goes down."),
    ],
    "letter": [
        ("One day {hero} found a letter near {spot}. There was no name on it.",
         "One morning the wind blew a letter to the feet of {hero}."),
        ('It said, "Please come to tea. I am new here, and I do not know anyone."',
         'Inside were only a few words. "I am lonely," it said. "Will you be my friend?"'),
        ("{hero} did not know who had written it.",
         "{hero} read it twice and put it into {his} pocket."),
        ("{He} went from house to house, but nobody knew anything about the letter.",
         "{He} asked the miller, the baker and the goose, and they all shook their heads."),
        ("At the last house, {pal} the {palkind} opened the door.",
         "In the evening {he} came to a house that {he} had never seen, "
         "and {pal} the {palkind} was sitting in front of it."),
        ('"Did you write this?" asked {hero}, and {pal} nodded shyly.',
         '"You found my letter!" said {pal}.'),
        ("{pal} put the kettle on, and they drank tea and ate a {food}.",
         "They sat in the garden and talked until the stars came out."),
        ('"Tomorrow you will come to my house," said {hero}.',
         "After that, nobody in the valley was lonely any more."),
    ],
}
# fmt: on


def draw_name(grammar: Grammar, pronoun: str, key: str) -> str:
    """A name that tells whether its owner is a she or a he; now and then an invented one, to be copied with care."""
    if grammar.chance(0.1):
        syllables = [grammar.even("bdfgklmnprstvz") + grammar.even("aeiou") for _ in range(grammar.even((2, 3)))]
        return capital("".join(syllables)) + {"she": "la", "he": "n"}[pronoun]
    return grammar.pick(NAMES[pronoun], key)


def draw_kind(grammar: Grammar) -> str:
    return grammar.even(GUESTS) if grammar.chance(0.15) else grammar.pick(list(KINDS))


def draw_fields(grammar: Grammar, kind: str) -> dict[str, str]:
    """Everything a plot may mention. What a hero has and meets depends on the kind of hero."""
    she = GENDERED.get(kind) or grammar.pick(("he", "she"), kind)
    other = "he" if she == "she" else "she"
    subject, objective, possessive = PRONOUNS[she]
    fields = dict(zip(("he", "him", "his"), (subject, objective, possessive), strict=True))
    fields |= {"He": capital(subject), "His": capital(possessive)}
    fields |= dict(zip(("phe", "phim", "phis"), PRONOUNS[other], strict=True))
    friends = [friend for friend in FRIENDS if friend != kind]
    project = grammar.pick(PROJECTS, kind + "project")
    skill = grammar.pick(SKILLS, kind + "skill")
    far = grammar.pick(FAR_PLACES, kind + "far")
    wonder = grammar.pick(WONDERS, kind + "wonder")
    fear = grammar.pick(FEARS, kind + "fear")
    seed = grammar.pick(SEEDS, kind + "seed")
    fields |= dict(zip(("project", "parts", "mishap", "use"), project, strict=True))
    fields |= dict(zip(("skill", "failure", "success"), skill, strict=True))
    fields |= dict(zip(("far", "sight"), far, strict=True))
    fields |= dict(zip(("wonder", "answer"), wonder, strict=True))
    fields |= dict(zip(("fear", "comfort", "relief"), fear, strict=True))
    fields |= dict(zip(("seed", "plant", "harvest"), seed, strict=True))
    fields |= {
        "kind": kind,
        "home": KINDS.get(kind) or grammar.pick(GUEST_HOMES, kind),
        "nature": grammar.pick(NATURES, kind),
        "hero": draw_name(grammar, she, kind),
        "pal": draw_name(grammar, other, kind + "friend"),
        "palkind": grammar.pick(friends, kind),
        "thing": grammar.pick(THINGS, kind),
        "spot": grammar.pick(SPOTS, kind),
        "food": grammar.pick(FOODS, kind),
        "lost_one": grammar.pick(LOST_ONES, kind),
        "trap": grammar.pick(TRAPS, kind),
        "gift": grammar.pick(GIFTS, kind),
    }
    for name in ("thing", "food", "palkind", "gift"):
        fields[f"a_{name}"] = with_article(fields[name])
    fields["A_lost_one"] = capital(with_article(fields["lost_one"]))
    return fields


def story(grammar: Grammar, kind: str | None = None) -> str:
    """One story, about a hero of the given kind or of any. Some stories of any kind begin without an opening."""
    hero_kind = kind or draw_kind(grammar)
    fields = draw_fields(grammar, hero_kind)
    name = grammar.pick(list(PLOTS), hero_kind)
    habits = [habit for habit in HABITS if not (name == "letter" and "{pal}" in habit)]
    opening = [grammar.pick(OPENINGS), grammar.pick(habits)]
    if kind is None and grammar.chance(0.1):
        opening = []
    beats = [*opening, *(grammar.pick(beat) for beat in PLOTS[name]), grammar.pick(CLOSINGS)]
    return " ".join(grammar.fill(beat, fields) for beat in beats if beat)
