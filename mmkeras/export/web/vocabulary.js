// Texts ↔ token ids, as `mmkeras.text.vocabulary` has them.
export const PAD = 0,
  UNKNOWN = 1,
  START = 2,
  END = 3,
  SPECIAL = 4;

const HAN = "[\\u3040-\\u30ff\\u3400-\\u9fff\\uf900-\\ufaff\\u{20000}-\\u{3ffff}]";
const NO_SPACES = `(${HAN}|[\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}\\p{Script=Myanmar}])`;
const REPLACEMENTS = {
  word: [],
  character: [
    [/^ | $/gu, ""],
    [RegExp(` (${HAN})`, "gu"), "$1"],
    [RegExp(`(${HAN}) `, "gu"), "$1"],
  ],
  mixed: [[RegExp(NO_SPACES, "gu"), " $1 "]],
};

/** 'A red circle!' → ['a', 'red', 'circle'] */
export function split(text, unit) {
  text = text.normalize("NFKC").replaceAll("\u0e4d\u0e32", "\u0e33").replaceAll("\u0ecd\u0eb2", "\u0eb3");
  text = text.replace(/[\u2019\u2018\u02bc\uff07]/gu, "'").toLowerCase();
  text = text.replace(/[^\P{Cf}\u200b]+/gu, "").replace(/[^\p{L}\p{N}\p{M}']+/gu, " ");
  for (const [pattern, replacement] of REPLACEMENTS[unit]) text = text.replace(pattern, replacement);
  return unit === "character" ? [...text] : text.split(" ").filter(Boolean);
}

/** Words and their ids between <start> and <end>. `unknown` are the words that the model does not know. */
export function encode(text, { words, unit }) {
  const parts = split(text, unit);
  const ids = parts.map((word) => {
    const id = words.indexOf(word);
    return id < 0 ? UNKNOWN : id;
  });
  const unknown = parts.filter((_, i) => ids[i] === UNKNOWN);
  const known = parts.filter((word, i) => ids[i] !== UNKNOWN && /[\p{L}\p{N}]/u.test(word));
  return { parts, ids: [START, ...ids, END], unknown, isKnown: known.length > 0 };
}

export const join = (words, unit) => words.join(unit === "character" ? "" : " ");
