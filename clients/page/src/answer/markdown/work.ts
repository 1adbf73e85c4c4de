/**
 * How much text was looked at, in letters: what tests hold against the length of an answer.
 * inline: by marked. highlighted: by highlight.js. markup: by DOMPurify. formulas: by KaTeX.
 */
export const work = { inline: 0, highlighted: 0, markup: 0, formulas: 0 };
