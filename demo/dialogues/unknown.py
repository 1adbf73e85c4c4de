"""Everything else: the demo model says that it is one, and how to get a real model.

The variety matters more than the wording here: these prompts must teach that whatever is not one of
the few known tasks gets this answer, so they reach as wide as templates can.
"""

from __future__ import annotations

from .base import Dialogue, Source, chat, listed
from .words import CITIES, COMMON, NAMES, invented_word

CANNOT = (
    "I am only a small demo model, so I cannot answer that. To get real answers, start "
    "Millstream with --model-id and the name of a real model."
)

_TOPICS = listed(
    "quantum physics|black holes|gravity|evolution|photosynthesis|the French Revolution|"
    "inflation|rust|the Roman Empire|democracy|climate change|electricity|magnetism|the internet|"
    "blockchain|bitcoin|the stock market|relativity|chemistry|biology|algebra|calculus|"
    "philosophy|love|friendship|war|peace|autumn|spring|the ocean|a lonely robot|a dragon|"
    "a brave knight|cats and dogs|space travel|the moon|Mars|football|chess|tennis|jazz|opera|"
    "cooking|pasta|sushi|vegan food|sleep|dreams|yoga|vitamins|headaches|fever|cancer|vaccines|"
    "the heart|the brain|volcanoes|earthquakes|the weather|rainbows|dinosaurs|whales|bees|"
    "spiders|penguins|elephants|coffee|wine|beer|chocolate|recursion|sorting|Python|Java|C++|"
    "JavaScript|SQL|Linux|Docker|Kubernetes|git|HTML|CSS|compilers|databases|encryption|"
    "neural networks|transformers|attention|machine learning|reinforcement learning|"
    "gradient descent|backpropagation|statistics|taxes|insurance|marketing|leadership|"
    "job interviews|resumes|travel|hiking|sailing|photography|painting|poetry|Shakespeare|Mozart|"
    "Einstein|Napoleon|Cleopatra|Gandhi|Star Wars|Harry Potter|Batman|the Beatles|Picasso|"
    "the pyramids|the Eiffel Tower|Mount Everest|the Amazon|the Sahara|trains|airplanes|"
    "electric cars|batteries|solar energy|nuclear power|recycling|a storm at sea|my grandmother|"
    "a birthday|a wedding|a lost key|time travel|the meaning of life",
    "|",
)
_ROLES = listed(
    "president|capital|king|prime minister|population|flag|currency|queen|largest city|"
    "national dish|language|highest mountain|longest river|anthem|mayor|history|area",
    "|",
)
_PLACES = listed(
    "France Germany Italy Spain Japan China India Brazil Canada Mexico Egypt Norway Sweden "
    "Poland Turkey Greece Kenya Peru Chile Cuba Iran Iraq Russia Portugal Austria Ireland "
    "Iceland Australia Texas California Europe Africa Asia America England"
)
_TOPIC_FORMS = listed(
    "Write a poem about {t}|Explain {t}|What is {t}?|Tell me about {t}|Write a story about {t}|"
    "Write an essay about {t}|Summarize {t}|What do you think about {t}?|How does {t} work?|"
    "Why is {t} important?|Give me 5 facts about {t}|Give me three tips for {t}|Teach me {t}|"
    "What are the benefits of {t}?|Who invented {t}?|When was {t} discovered?|"
    "Compare {t} and {t2}|What is the difference between {t} and {t2}?|Write a song about {t}|"
    "Write a haiku about {t}|Describe {t}|Is {t} good for you?|Do you like {t}?|"
    "What is the history of {t}?|Define {t}|Write a joke about {t}|Tell me a joke about {t}|"
    "Tell me a story about {t}|I love {t}|I have a question about {t}|Can you explain {t}?|"
    "Recommend a book about {t}|Write a blog post on {t}|Give me ideas for {t}|What causes {t}?|"
    "How can I learn {t}?|Write an email about {t}|Which is better, {t} or {t2}?|"
    "What's new in {t}?|Write a limerick about {t}|Who likes {t}?|Explain {t} like I am five|"
    "Explain {t} in simple words|Pros and cons of {t}|Let's talk about {t}|Draw {t}|"
    "Give me a quiz on {t}|Write a short story about {t}|Write two sentences about {t}",
    "|",
)
_PLACE_FORMS = listed(
    "Who is the {r} of {p}?|What is the {r} of {p}?|What can you do in {c}?|Where is {p}?|"
    "What can I do in {c}? Give me 3 tips|Plan a trip to {c}|What is the weather in {c}?|"
    "How do I get to {c}?|Tell me about {p}|How many people live in {c}?|Is {c} in {p}?|"
    "What time is it in {c}?|Best restaurants in {c}|Will it rain in {c} tomorrow?|"
    "Who lives in {c}?|How far is it from {c} to {c2}?|Find me a hotel in {c}|Who is {n}?|"
    "Who was {n}?|Write a letter to {n}|Do you know {n}?|Where does {n} live?|"
    "Who won the game in {c}?|Book a flight from {c} to {c2}|What did {n} say?|How old is {n}?|"
    "Send {n} a message",
    "|",
)
_LOOSE = listed(
    "Tell me a joke|Tell me a story|Write a poem|What is the meaning of life?|What time is it?|"
    "What day is it today?|What is the date?|How old are you?|Where are you from?|Do you dream?|"
    "Who won the world cup?|What is the speed of light?|How tall is Mount Everest?|Sing a song|"
    "What should I eat today?|Recommend a movie|How do I lose weight?|Fix my code|I am bored|"
    "I am sad|Write a function that reverses a string|Write a Python script|Write a program in C|"
    "Write hello world in Java|def foo(x): return x|SELECT * FROM users|print('hello')|"
    "import numpy|How do I center a div?|Write a regex for emails|What is 2 to the power of 10?|"
    "Prove it|What is the square root of 16?|Solve x^2 = 4|What is pi?|"
    "What is the derivative of x?|Integrate x squared|Convert 5 miles to km|"
    "What is 15 percent of 80?|How many grams in a pound?|Translate hello to French|"
    "Translate good morning into Spanish|How do you say thank you in German?|"
    "Correct this sentence: he go home|Summarize this text|Rewrite this paragraph|"
    "Give me a synonym|What rhymes with orange?|Spell necessary|What is the opposite of hot?|"
    "Is water wet?|Why?|Who?|Why is the sky blue?|How do birds fly?|What is love?|"
    "Are aliens real?|Is there a god?|What?|Can pigs fly?|Do fish sleep?|"
    "Who painted the Mona Lisa?|Who wrote Hamlet?|Who discovered America?|When did the war end?|"
    "What happened in 1989?|Who is the richest man?|What is the best phone?|How do I make bread?|"
    "How do I boil an egg?|Give me a recipe for soup|Make a shopping list|What is my horoscope?|"
    "Play music|Set a timer|Call my mother|Open the window|Buy milk|Book a table|"
    "Give me some advice|Should I quit my job?|Write my resume|Write a cover letter|Plan my day|"
    "Give me a random number|Flip a coin|Roll a dice|Pick a card|Guess my age|Guess a number|"
    "Classify this review|Extract the names|Generate an image|Draw a cat|What do you see?|"
    "Was ist Deep Learning?|Wie heißt du?|Wie geht es dir?|Zähle bis 10|Erzähl mir einen Witz|"
    "Was kann man in Berlin machen?|Guten Tag|Qui es-tu ?|Comment ça va ?|Bonjour|"
    "Quelle heure est-il ?|Raconte-moi une blague|¿Cómo estás?|Hola|¿Quién eres?|"
    "Cuéntame un chiste|¿Qué hora es?|Ciao, come stai?|Che ore sono?|Quem é você?|Olá|Как дела?|"
    "Привет|Расскажи анекдот|你好|你是谁?|什么是深度学习?|こんにちは|あなたは誰ですか?|"
    "ディープラーニングとは何ですか?|안녕하세요|مرحبا|"
    "नमस्ते|Hej|Hvordan går det?|asdf|asdfghjkl|qwerty|??|...|!!!|:)|lol|hmm|xyz|aaaa|123 abc|42|"
    "0|blah blah|foo bar baz|lorem ipsum",
    "|",
)
_ACTIONS = listed(
    "fix build clean paint cook sell buy repair wash fold bake install debug deploy train grow "
    "remove open sharpen tie draw write learn plan design organize measure"
)
_QUESTIONS = listed(
    "How do I {a} a {w}?|What is a {w}?|Why is the {w} {w2}?|Where can I buy a {w}?|"
    "How much does a {w} cost?|How big is a {w}?|Who invented the {w}?|Can a {w} {a}?|"
    "Is a {w} better than a {w2}?|Write a poem about a {w} and a {w2}|Do you have a {w}?|"
    "How do you {a} the {w}?|What does {w} mean?|I want to {a} my {w}|My {w} does not work|"
    "Should I {a} the {w}?|Where is my {w}?|Write code to {a} a {w}|Tell me about the {w}|"
    "Write a {w} in Python|Explain the {w}|I need a {w}|Help me {a} a {w}|{w} or {w2}?|"
    "Which {w} is the best?|When will the {w} {a}?|Make a {w} for me",
    "|",
)


def _prompt(src: Source) -> str:
    roll = src.rng.random()
    if roll < 0.3:
        return src.ask([src.pick(_TOPIC_FORMS)], t=src.pick(_TOPICS), t2=src.pick(_TOPICS))
    if roll < 0.45:
        return src.ask(
            [src.pick(_PLACE_FORMS)],
            r=src.pick(_ROLES),
            p=src.pick(_PLACES),
            c=src.pick(CITIES),
            c2=src.pick(CITIES),
            n=src.pick(NAMES),
        )
    if roll < 0.65:
        return src.ask([src.pick(_LOOSE).replace("{", "(").replace("}", ")")])
    if roll < 0.9:
        words = [invented_word(src) if src.chance(0.3) else src.pick(COMMON) for _ in range(2)]
        return src.ask([src.pick(_QUESTIONS)], a=src.pick(_ACTIONS), w=words[0], w2=words[1])
    return gibberish(src)


def gibberish(src: Source) -> str:
    count = src.rng.randint(1, 6)
    if src.chance(0.3):
        return "".join(src.rng.choices("abcdefghijklmnopqrstuvwxyz0123456789.,;:-+#?", k=count * 4))
    return " ".join(invented_word(src) for _ in range(count))


def unknown(src: Source) -> Dialogue:
    return chat("unknown", _prompt(src), CANNOT)
