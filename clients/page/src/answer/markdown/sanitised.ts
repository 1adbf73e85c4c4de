/**
 * HTML from outside becomes elements only here, and only by DOMPurify. All else that an answer shows is
 * made of elements and texts that this page names, so that there is nothing in it to be parsed.
 *
 * HTML that the model wrote is shown as HTML if there is nothing to take away, and else as it was written:
 * nothing that was said goes missing. What has other tags than harmless ones is not even parsed, since the
 * page's policy is asked, and reports, when a style is. With Trusted Types, no other code can parse HTML.
 */

import createPurifier, { type Config } from "dompurify";
import { safeAddress } from "./addresses";
import { work } from "./work";

interface TypeFactory {
  createPolicy(name: string, rules: { createHTML(html: string): string }): unknown;
}

const types = (window as { trustedTypes?: TypeFactory }).trustedTypes;
// What passes the policy is only ever parsed by DOMPurify, in a document in which nothing runs.
const policy = types?.createPolicy("dompurify", { createHTML: (html) => html });
const ofPolicy = policy ? { TRUSTED_TYPES_POLICY: policy as NonNullable<Config["TRUSTED_TYPES_POLICY"]> } : {};

type FragmentRules = Config & { RETURN_DOM_FRAGMENT: true };

const MARKUP = createPurifier(window);
const HARMLESS_TAGS = [
    ..."a abbr b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div dl dt em".split(" "),
    ..."figcaption figure h1 h2 h3 h4 h5 h6 hr i ins kbd li mark ol p pre q rp rt ruby s samp section small".split(" "),
    ..."span strong sub summary sup table tbody td tfoot th thead tr u ul var wbr".split(" "),
];
const HARMLESS_ATTRIBUTES = ["align", "colspan", "dir", "href", "lang", "open", "rowspan", "start", "title"];
const MARKUP_RULES: FragmentRules = {
  ...ofPolicy,
  // The parser's own body is looked at, too.
  ALLOWED_TAGS: [...HARMLESS_TAGS, "body", "#text"],
  ALLOWED_ATTR: HARMLESS_ATTRIBUTES,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
MARKUP.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  const address = safeAddress(node.getAttribute("href") ?? "");
  if (address === null) {
    node.removeAttribute("href");
    return;
  }
  node.setAttribute("href", address);
  node.setAttribute("rel", "noopener noreferrer");
  node.setAttribute("target", "_blank");
});

const TAG = /<(\/?)([a-zA-Z][a-zA-Z0-9]*)((?:\s+[a-zA-Z]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'=<>`]+))?)*)\s*\/?>/g;
const ATTRIBUTE = /([a-zA-Z]+)(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"']+))?/g;

/** Whether all that is in brackets are harmless tags, with attributes that are harmless, too. */
function looksHarmless(html: string): boolean {
  let isHarmless = true;
  const rest = html.replace(TAG, (_, _slash: string, name: string, attributes: string) => {
    const names = [...attributes.matchAll(ATTRIBUTE)].map((found) => found[1]!.toLowerCase());
    isHarmless &&= HARMLESS_TAGS.includes(name.toLowerCase());
    isHarmless &&= names.every((each) => HARMLESS_ATTRIBUTES.includes(each));
    return "";
  });
  return isHarmless && !/<[^\s\d]/.test(rest);
}

/** The elements of HTML that does no harm; null if anything would have to be taken away. */
export function harmlessMarkup(html: string): DocumentFragment | null {
  if (!looksHarmless(html)) return null;
  work.markup += html.length;
  const fragment = MARKUP.sanitize(html, MARKUP_RULES);
  return MARKUP.removed.length === 0 ? fragment : null;
}

const FORMULAS = createPurifier(window);
const FORMULA_RULES: FragmentRules = {
  ...ofPolicy,
  USE_PROFILES: { mathMl: true },
  ADD_TAGS: ["semantics", "annotation"],
  ADD_ATTR: ["encoding"],
  FORBID_ATTR: ["href", "style", "id", "name", "src"],
  RETURN_DOM_FRAGMENT: true,
};

/** The elements of MathML that KaTeX has written. */
export function mathElements(html: string): DocumentFragment {
  // KaTeX writes quotation marks in texts as entities, so these are attributes.
  return FORMULAS.sanitize(html.replace(/ style="[^"]*"/g, ""), FORMULA_RULES);
}

const letters = new Map<string, string>();

/** The text with letters where it has names of letters, such as `&amp;`. */
export function withoutEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[a-zA-Z][\da-zA-Z]{1,31});/g, (name) => {
    let letter = letters.get(name);
    if (letter === undefined) {
      letter = MARKUP.sanitize(name, MARKUP_RULES).textContent;
      letters.set(name, letter);
    }
    return letter;
  });
}
