export interface Track {
  x: ArrayLike<number>;
  values: readonly (number | null)[];
}

/** Puts tracks with x values of their own on one shared, sorted x; null where a track has no point. */
export function align(tracks: readonly Track[]): { x: Float64Array; values: (number | null)[][] } {
  const first = tracks[0];
  if (tracks.every((track) => track.x === first?.x)) {
    return { x: Float64Array.from(first?.x ?? []), values: tracks.map((track) => track.values.slice()) };
  }
  const all = new Set<number>();
  for (const { x } of tracks) for (let i = 0; i < x.length; i++) all.add(x[i]);
  const x = Float64Array.from(all).sort();
  const place = new Map<number, number>();
  x.forEach((value, i) => {
    place.set(value, i);
  });
  const values = tracks.map((track) => {
    const out: (number | null)[] = new Array(x.length).fill(null);
    track.values.forEach((value, i) => {
      out[place.get(track.x[i]) as number] = value;
    });
    return out;
  });
  return { x, values };
}

/** Typed array to what a chart takes: null for what was not measured. */
export function nullable(values: ArrayLike<number>): (number | null)[] {
  return Array.from(values, (v) => (Number.isFinite(v) ? v : null));
}
