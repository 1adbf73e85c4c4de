/** Where a text stops being JSON. Browsers say it in words of their own, or not at all. Pure. */

const SPACE = /[ \t\n\r]*/y;
const TEXT = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"/y;
const WORD = /(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.])/y;

class Stop {
  constructor(readonly place: number) {}
}

/** The place of the first letter that cannot stand there; the text's length if something is missing. */
export function wrongPlace(text: string): number {
  try {
    return afterSpace(text, afterValue(text, 0));
  } catch (stop) {
    if (stop instanceof Stop) return stop.place;
    throw stop;
  }
}

function after(pattern: RegExp, text: string, place: number): number {
  pattern.lastIndex = place;
  return pattern.test(text) ? pattern.lastIndex : -1;
}

function afterSpace(text: string, place: number): number {
  return after(SPACE, text, place);
}

function afterValue(text: string, from: number): number {
  const place = afterSpace(text, from);
  if (text[place] === "{" || text[place] === "[") return afterMembers(text, place);
  const end = Math.max(after(TEXT, text, place), after(WORD, text, place));
  if (end < 0) throw new Stop(place);
  return end;
}

function afterMembers(text: string, open: number): number {
  const close = text[open] === "{" ? "}" : "]";
  let place = afterSpace(text, open + 1);
  if (text[place] === close) return place + 1;
  for (;;) {
    if (close === "}") place = afterName(text, place);
    place = afterSpace(text, afterValue(text, place));
    if (text[place] === close) return place + 1;
    if (text[place] !== ",") throw new Stop(place);
    place = afterSpace(text, place + 1);
  }
}

function afterName(text: string, place: number): number {
  const end = after(TEXT, text, place);
  if (end < 0) throw new Stop(place);
  const colon = afterSpace(text, end);
  if (text[colon] !== ":") throw new Stop(colon);
  return colon + 1;
}
