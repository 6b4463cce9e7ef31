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

/**
 * Agreement in the middle (the panel's own colour, nearly). Below it is blue, above it orange: hues that every common
 * kind of colour blindness keeps apart. As far from the middle, above stands out more in lightness than below.
 */
const DIVERGING: Record<Theme, readonly Rgb[]> = {
  light: [
    [30, 110, 205],
    [92, 160, 230],
    [166, 205, 242],
    [236, 239, 244],
    [248, 178, 92],
    [186, 78, 22],
    [84, 22, 8],
  ],
  dark: [
    [84, 140, 214],
    [52, 102, 172],
    [42, 72, 118],
    [48, 50, 56],
    [136, 70, 24],
    [232, 138, 52],
    [255, 232, 176],
  ],
};

function stops(theme: Theme, diverging: boolean): readonly Rgb[] {
  return (diverging ? DIVERGING : RAMPS)[theme];
}

/** 256 colours, RGB. */
export function colormap(theme: Theme, diverging = false): Uint8Array {
  const ramp = stops(theme, diverging);
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

/** The colours of a ramp from low to high, evenly spread, as CSS. */
export function cssStops(theme: Theme, diverging = false): string[] {
  return stops(theme, diverging).map(([r, g, b]) => `rgb(${r} ${g} ${b})`);
}
