/** Names that Keras gives to layers without a name, before the number. */
const AUTOMATIC = /(^|\/)(sync_)?batch_normalization(#\d+)?$/;

/**
 * Layer of another run -> the same layer of the first one, where both have it, as `report/matching.py` says:
 * Keras numbers layers without a name over a whole process, so names that differ only by such numbers are matched in
 * the order of the model.
 */
export function matched(first: readonly string[], other: readonly string[]): Map<string, string> {
  const here = byStem(first);
  const found = new Map<string, string>();
  for (const [stem, names] of byStem(other)) {
    const known = here.get(stem) ?? [];
    const same = known.length === names.length && names.every((name) => known.includes(name));
    const inOrder = !same && (known.length === names.length || AUTOMATIC.test(stem));
    for (const [i, name] of names.entries()) {
      const counterpart = inOrder ? known[i] : known.find((one) => one === name);
      if (counterpart !== undefined) found.set(name, counterpart);
    }
  }
  return found;
}

function byStem(names: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const name of names) {
    const stem = name.replace(/_\d+(?=[/#]|$)/g, '');
    found.set(stem, [...(found.get(stem) ?? []), name]);
  }
  return found;
}
