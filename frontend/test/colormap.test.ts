import { describe, expect, it } from 'vitest';
import { colormap } from '../src/charts/colormap';

type Rgb = [number, number, number];

/** Linear RGB as a person sees it who lacks one kind of cone, or as grey (Machado, Oliveira, Fernandes 2009, severity 1). */
const SEEN: Record<string, number[][]> = {
  protan: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deutan: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritan: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

const linear = (c: number) => (c <= 10.31 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);

/** CIE L*a*b* of linear RGB, D65. */
function lab([r, g, b]: number[]): number[] {
  const f = (t: number) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function seen(rgb: Rgb, matrix: number[][]): number[] {
  const from = rgb.map(linear);
  return lab(
    matrix.map((row) => Math.min(1, Math.max(0, row[0] * from[0] + row[1] * from[1] + row[2] * from[2]))),
  );
}

const difference = (a: number[], b: number[]) => Math.hypot(...a.map((v, i) => v - b[i]));

describe.each(['light', 'dark'] as const)('diverging colours, %s', (theme) => {
  const map = colormap(theme, true);
  const at = (i: number): Rgb => [map[3 * i], map[3 * i + 1], map[3 * i + 2]];
  // From a third of the way to the end: nearer to the middle there is little to tell apart.
  const pairs = Array.from({ length: 86 }, (_, i): [Rgb, Rgb] => [at(85 - i), at(170 + i)]);

  it.each(Object.keys(SEEN))('keep below and above apart for %s eyes', (kind) => {
    for (const [below, above] of pairs) {
      // 2.3 is just noticeable.
      expect(difference(seen(below, SEEN[kind]), seen(above, SEEN[kind]))).toBeGreaterThan(20);
    }
  });

  it('end in lightness that tells them apart without any hue', () => {
    const lightness = (i: number) => lab(at(i).map(linear))[0];
    expect(Math.abs(lightness(0) - lightness(255))).toBeGreaterThan(25);
  });

  it('depart from the panel evenly: lightness moves one way on either side', () => {
    const lightness = Array.from({ length: 256 }, (_, i) => lab(at(i).map(linear))[0]);
    const sign = theme === 'light' ? -1 : 1;
    for (let i = 130; i < 256; i++) expect(sign * (lightness[i] - lightness[i - 1])).toBeGreaterThan(-0.7);
    for (let i = 125; i >= 0; i--) expect(sign * (lightness[i] - lightness[i + 1])).toBeGreaterThan(-0.7);
  });
});
