"""Word lists and invented words: what sentences, names, cities and tools are made of."""

from __future__ import annotations

from .base import Source, listed

COMMON = listed(
    "this that the a my your our his her their it he she we they you I is was are will can may "
    "must one two three every some no many all most good new old small big red blue green black "
    "white happy sad quick slow warm cold bright dark quiet loud soft hard early late long short "
    "young cat dog bird fish horse mouse tree flower river sea lake mountain hill road house "
    "door window table chair book letter word story song game ball car train boat plane bridge "
    "city town garden kitchen bread cheese apple orange lemon coffee tea water milk sugar salt "
    "soup cake rain snow wind sun moon star sky cloud fire light night day morning evening week "
    "year time hour minute man woman child friend teacher doctor king queen farmer baker driver "
    "writer brother sister runs walks sleeps eats drinks sings jumps reads writes plays opens "
    "closes finds makes takes gives likes loves sees hears knows wants needs keeps holds brings "
    "falls stands sits waits in on at under over near with without from to by for of and or but "
    "not very too again always never often here there now then today tomorrow yesterday soon "
    "test hello world please thank welcome open close stop start first last next same other "
    "great little best right left up down computer server model token stream message answer "
    "question number name color music paper stone glass gold silver iron wood sand grass leaf "
    "root seed wheel clock lamp key box bag hat coat shoe"
)

NAMES = listed(
    "Anna Ben Carla David Emma Felix Greta Henry Ida Jonas Kate Leo Maria Noah Olivia Paul Rosa "
    "Sam Tina Victor Wendy Xavier Yara Zoe Alice Bob Charlie Diana Eric Fiona George Hannah Ivan "
    "Julia Kevin Laura Martin Nina Oscar Petra Quentin Robert Sarah Thomas Uma Vera Walter Amir "
    "Bianca Chen Dmitri Elena Farid Gina Hugo Ingrid Jamal Kofi Lena Mateo Nadia Omar Priya "
    "Rafael Sofia Tariq Ursula Vikram Wei Yuki Zara Adam Lucy Mike Jane John Mary Peter Susan "
    "Mark Linda James Clara Simon Ella Max Mia Tom Tim Kim Jim Joe Ann Sue Dan Ron Ray Roy Amy "
    "Eva Eve Ali Bo Li"
)

CITIES = listed(
    "Oslo Paris London Berlin Madrid Rome Vienna Prague Warsaw Dublin Lisbon Athens Helsinki "
    "Zurich Geneva Munich Hamburg Cologne Milan Naples Turin Lyon Nice Boston Chicago Dallas "
    "Denver Austin Seattle Miami Toronto Montreal Tokyo Kyoto Osaka Seoul Delhi Mumbai Sydney "
    "Perth Cairo Nairobi Lagos Lima Bogota Santiago Havana Istanbul Moscow Kiev Riga Vilnius "
    "Bergen Malmo Aarhus Porto Seville Valencia Bilbao Ghent Bruges Utrecht Leeds Bristol York "
    "Oxford Dover Salzburg Graz"
)

_ONSETS = listed(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sn sp st "
    "t th tr v w z"
)
_VOWELS = listed("a e i o u a e i o u ai ea ee oo ou ia")
_CODAS = [
    "",
    "",
    "",
    "n",
    "r",
    "s",
    "t",
    "l",
    "m",
    "k",
    "x",
    "p",
    "d",
    "rn",
    "st",
    "nd",
    "ck",
    "ff",
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def invented_word(src: Source, most: int = 3) -> str:
    """A word nobody has seen: syllables, or now and then plain random letters."""
    if src.chance(0.12):
        return "".join(src.rng.choices(_LETTERS, k=src.rng.randint(2, 7)))
    syllables = src.rng.randint(1, most)
    return "".join(
        src.pick(_ONSETS) + src.pick(_VOWELS) + src.pick(_CODAS) for _ in range(syllables)
    )


def person(src: Source) -> str:
    """A name, from the list or invented; its spelling decides on which side of the split it is."""

    def make() -> str:
        return src.pick(NAMES) if src.chance(0.5) else invented_word(src).capitalize()

    return src.fresh(make)


def city(src: Source) -> str:
    def make() -> str:
        return src.pick(CITIES) if src.chance(0.6) else invented_word(src).capitalize()

    return src.fresh(make)


def number_text(src: Source) -> str:
    """A number of one to six digits, as codes and amounts have."""
    digits = src.rng.choice((1, 2, 2, 3, 4, 5, 6))
    return str(src.rng.randint(10 ** (digits - 1), 10**digits - 1))
