// What `convnext predict --json` says of an image, from what the network gives: logits, scores and answers of each class.

const TOP = 5; // classes that are named
const SLACK = 1e-6; // of a set, as in tasks/classification/conformal.py

export const answerOf = ({ classes, several, promised, sets }, logits, scores, answers) => {
  if (!logits.every(Number.isFinite)) throw new Error("The network answers with values that are no numbers.");
  const by = several ? scores : logits;
  const order = classes.map((_, place) => place).sort((one, other) => by[other] - by[one] || one - other);
  const row = (place) => ({ label: classes[place], score: scores[place] });
  if (several) return { predictions: order.filter((place) => answers[place]).map(row) };
  const found = { predictions: order.slice(0, TOP).map(row) };
  if (promised) found.answered = Boolean(answers[order[0]]);
  if (sets) found.set = order.slice(0, setSize(sets, order.map((place) => scores[place]))).map((place) => classes[place]);
  return found;
};

// How many classes, the likeliest, belong to the set: those that what lies before them, and a penalty for late ranks, allow.
const setSize = ({ most, penalty, free }, ranked) => {
  let before = 0;
  let size = 0;
  ranked.forEach((score, rank) => {
    if (before + penalty * Math.max(0, rank + 1 - free) <= most + SLACK) size += 1;
    before += score;
  });
  return Math.max(1, size);
};
