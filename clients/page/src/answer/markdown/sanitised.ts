/**
 * HTML from outside becomes elements only here, and only by DOMPurify. All else that an answer shows is
 * made of elements and texts that this page names, so that there is nothing in it to be parsed.
 *
 * HTML that the model wrote is shown as HTML if DOMPurify finds nothing to take away, and else as it was
 * written: nothing that was said goes missing. With Trusted Types, no other code can parse HTML.
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
const MARKUP_RULES: FragmentRules = {
  ...ofPolicy,
  ALLOWED_TAGS: [
    ..."a abbr b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div dl dt em body".split(" "),
    ..."figcaption figure h1 h2 h3 h4 h5 h6 hr i ins kbd li mark ol p pre q rp rt ruby s samp section small".split(" "),
    ..."span strong sub summary sup table tbody td tfoot th thead tr u ul var wbr #text".split(" "),
  ],
  ALLOWED_ATTR: ["align", "colspan", "dir", "href", "lang", "open", "rowspan", "start", "title"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
// What the parser drops by itself, before DOMPurify sees it.
const DROPPED = /<(?:!doctype|html|head|body|\/?frameset|\?)/i;

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

/** The elements of HTML that does no harm; null if anything would have to be taken away. */
export function harmlessMarkup(html: string): DocumentFragment | null {
  work.markup += html.length;
  if (DROPPED.test(html)) return null;
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
  return FORMULAS.sanitize(html, FORMULA_RULES);
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
