// From logits to answers, and from weights over time to the times of words.
import { PAD, START, END, SPECIAL } from "mmkeras/vocabulary.js";

/** Probabilities of logits at a temperature: below 1 sharper, above 1 flatter. Those of `never` are 0. */
export function softmax(logits, temperature = 1, never = []) {
  const scaled = Array.from(logits, (value, i) => (never.includes(i) ? -Infinity : value / temperature));
  const highest = Math.max(...scaled);
  const powers = scaled.map((value) => Math.exp(value - highest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

export const argmax = (values, from = 0) => {
  let best = from;
  for (let i = from; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
};

/**
 * Greedy search with an attention decoder: the most probable token at each step, until <end>.
 * @param step ({token, hidden, cell}) → {logits, hidden, cell, attention}
 * @returns One {id, logits, attention} a step; the last is <end>, if it was reached.
 */
export async function greedy(step, { hidden, cell }, longest) {
  const steps = [];
  for (let token = START; token !== END && steps.length < longest;) {
    const result = await step({ token, hidden, cell });
    ({ hidden, cell } = result);
    token = argmax(result.logits, END); // padding, unknown words and <start> are never generated
    steps.push({ id: token, logits: result.logits, attention: result.attention });
  }
  return steps;
}

/** The best path of CTC: the best token of each time step, repetitions joined, blanks (0) dropped. */
export function bestPath(rows) {
  const best = rows.map((logits) => {
    const id = argmax(logits, SPECIAL);
    return logits[PAD] >= logits[id] ? PAD : id;
  });
  return best.filter((id, i) => id !== PAD && id !== best[i - 1]);
}

/** As `mmkeras.evaluation.alignment.monotonic`: T rows of weights over S steps → T pairs [start, stop]. */
export function monotonic(weights) {
  const tokens = weights.length,
    steps = weights[0]?.length ?? 0;
  if (tokens > steps) {
    let peak = 0;
    return weights.map((row) => {
      peak = Math.max(peak, argmax(row));
      return [peak, peak + 1];
    });
  }
  const gains = weights.map((row) => Array.from(row, (weight) => Math.log(weight + 1e-6)));
  const stays = weights.map(() => new Array(steps).fill(false));
  let best = new Array(tokens).fill(-Infinity);
  for (let step = 0; step < steps; step++) {
    best = best.map((stay, t) => {
      const advance = t ? best[t - 1] : -Infinity;
      stays[t][step] = t === 0 || (step > 0 && stay >= advance);
      if (step === 0) return t ? -Infinity : gains[0][0];
      return (t ? Math.max(stay, advance) : stay) + gains[t][step];
    });
  }
  const starts = new Array(tokens).fill(0);
  for (let token = tokens - 1, step = steps - 1; token > 0; token--, step--) {
    while (stays[token][step]) step--;
    starts[token] = step;
  }
  const spans = [];
  weights.forEach((row, t) => {
    const own = Array.from(row).slice(starts[t], starts[t + 1] ?? steps),
      limit = 0.1 * Math.max(...own);
    const first = starts[t] + own.findIndex((weight) => weight >= limit);
    const last = starts[t] + own.findLastIndex((weight) => weight >= limit);
    spans.push([t ? spans[t - 1][1] : first, last + 1]);
  });
  return spans;
}
