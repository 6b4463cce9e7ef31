import type { Theme } from '../theme';

type Rgb = readonly [number, number, number];

/** From "nothing wrong" (near the panel's own colour) to the far end, rising evenly in contrast to the panel. */
const RAMPS: Record<Theme, readonly Rgb[]> = {
  light: [
    [236, 239, 244],
    [253, 224, 150],
    [247, 164, 72],
    [220, 88, 58],
    [152, 32, 84],
    [66, 10, 86],
  ],
  dark: [
    [48, 50, 56],
    [84, 40, 104],
    [160, 44, 104],
    [222, 84, 70],
    [250, 160, 76],
    [254, 236, 170],
  ],
};

/** 256 colours, RGB. */
export function colormap(theme: Theme): Uint8Array {
  const ramp = RAMPS[theme];
  const out = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (ramp.length - 1);
    const low = Math.min(Math.floor(place), ramp.length - 2);
    for (let c = 0; c < 3; c++) {
      out[i * 3 + c] = Math.round(ramp[low][c] + (place - low) * (ramp[low + 1][c] - ramp[low][c]));
    }
  }
  return out;
}

export function gradient(theme: Theme): string {
  const ramp = RAMPS[theme];
  return `linear-gradient(to right, ${ramp.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(', ')})`;
}
