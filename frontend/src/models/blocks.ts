import type { LayerReport } from '../wire';

/** A row of the layer table: a layer, or the head of a block of layers that follow each other. */
export type TableRow =
  | { kind: 'layer'; layer: LayerReport; block: string | null }
  | { kind: 'block'; block: string; layers: LayerReport[]; folded: boolean };

/** Ends of what can be the name of a block: a folder, or a word that ends in a number, as in `block_3_expand_BN`. */
function prefixes(name: string): string[] {
  const found: string[] = [];
  for (const { index } of name.matchAll(/\/|(?<=\d)[_.-]/g)) if (index) found.push(name.slice(0, index));
  return found;
}

/**
 * The block of each layer: the longest prefix that it shares with another layer and not with all of them. Null for a
 * layer without one, for instance `bn_12`.
 */
export function blocksOf(names: readonly string[]): (string | null)[] {
  const sharing = new Map<string, number>();
  const all = names.map(prefixes);
  for (const each of all) for (const prefix of each) sharing.set(prefix, (sharing.get(prefix) ?? 0) + 1);
  return all.map((each) => {
    const shared = each.filter((prefix) => {
      const size = sharing.get(prefix) ?? 0;
      return size > 1 && size < names.length;
    });
    return shared[shared.length - 1] ?? null;
  });
}

/** The rows of layers in order, with a head above each run of layers of one block; folded blocks show the head only. */
export function blockRows(
  layers: readonly LayerReport[],
  blocks: ReadonlyMap<number, string | null>,
  folded: ReadonlySet<string>,
): TableRow[] {
  const rows: TableRow[] = [];
  for (let i = 0; i < layers.length; ) {
    const block = blocks.get(layers[i].index) ?? null;
    let end = i + 1;
    while (end < layers.length && block !== null && blocks.get(layers[end].index) === block) end++;
    const own = layers.slice(i, end);
    // A block of one has nothing to fold.
    const whole = own.length > 1 ? block : null;
    if (whole !== null) rows.push({ kind: 'block', block: whole, layers: own, folded: folded.has(whole) });
    if (whole === null || !folded.has(whole))
      for (const layer of own) rows.push({ kind: 'layer', layer, block: whole });
    i = end;
  }
  return rows;
}

/** The largest value of the layers that have one. */
export function largest(values: readonly (number | null)[]): number | null {
  const known = values.filter((value): value is number => value !== null);
  return known.length ? Math.max(...known) : null;
}
