// What the tests of Markdown call in the browser: the view itself, without a server or a chat around it.
import { MarkdownView } from "../../clients/page/src/answer/markdown/markdown_view";
import { work } from "../../clients/page/src/answer/markdown/work";

function shown(steps: string[]): string {
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  for (const step of steps) view.update(step, true);
  view.update(steps.at(-1) ?? "", false);
  return element.innerHTML;
}

/** The beginnings of a text, each longer by some letters: by one, by a few, by many. */
function beginnings(text: string, seed: number): string[] {
  let state = seed;
  const longest = [1, 6, 90][seed % 3]!;
  const ends = [];
  for (let end = 0; end < text.length; ) {
    state = (state * 1103515245 + 12345) % 2147483648;
    end += 1 + (state % longest);
    ends.push(Math.min(end, text.length));
  }
  return ends.map((end) => text.slice(0, end));
}

/** Every different state that is shown on the way. */
function states(text: string): string[] {
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  const seen = [];
  for (let end = 1; end <= text.length; end += 1) {
    view.update(text.slice(0, end), true);
    if (seen.at(-1) !== element.innerHTML) seen.push(element.innerHTML);
  }
  return seen;
}

/** How many letters were looked at for each of four parts of a text that comes in steps. */
function workOf(text: string, step: number): number[] {
  const view = new MarkdownView(document.createElement("div"));
  const sum = () => work.inline + work.highlighted + work.markup + work.formulas;
  const parts = [];
  for (let part = 0; part < 4; part += 1) {
    const before = sum();
    const last = Math.floor((text.length * (part + 1)) / 4);
    for (let end = Math.floor((text.length * part) / 4); end < last; end += step) view.update(text.slice(0, end), true);
    parts.push(sum() - before);
  }
  return parts;
}

/** Whether the elements of what is finished are the same objects after more text came. */
function stays(text: string, more: string, selector: string): boolean {
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  view.update(text, true);
  const before = [...element.querySelectorAll(selector)];
  view.update(text + more, true);
  view.update(text + more, false);
  const after = [...element.querySelectorAll(selector)];
  return before.length > 0 && before.every((each, place) => after[place] === each);
}

/** Shows a text in the page itself as it grows by so many letters. */
function stream(text: string, step: number): void {
  const element = document.createElement("div");
  element.className = "markdown";
  document.body.append(element);
  const view = new MarkdownView(element);
  for (let end = step; end < text.length; end += step) view.update(text.slice(0, end), true);
  view.update(text, false);
}

Object.assign(window, { shown, beginnings, states, workOf, stays, stream });
