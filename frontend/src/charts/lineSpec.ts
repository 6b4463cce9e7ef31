import type { ScaleKind } from '../models/scale';
import type { Mark } from './overlay';

/** One line of a chart. Colours are names of theme properties, or literal colours that start with #. */
export interface Line {
  id: string;
  label: string;
  color: string;
  width: number;
  dash?: number[];
  alpha?: number;
  /** True: points only, without a line. False: never points. Else points where the line has few. */
  points?: boolean;
  /** Fills the area between this line and the one after it. */
  bandToNext?: boolean;
  /** False for a line that the legend does not name: the other edge of a band, or a raw line under a smooth one. */
  legend?: boolean;
  /** Hidden until it is switched on. */
  optional?: boolean;
  values: (number | null)[];
}

export interface LineSpec {
  x: Float64Array;
  lines: Line[];
  xLabel: string;
  xFormat: (x: number) => string;
  /** A position in the words of a tooltip; without it there is no tooltip. */
  where?: (x: number) => string;
  /** Positions of the x labels between two ends of an axis of so many pixels. */
  xSplits: (from: number, to: number, width: number) => number[];
  yLabel: string;
  yScale: ScaleKind;
  yFormat: (y: number) => string;
  range: readonly [number, number] | null;
  marks: Mark[];
  shade: readonly [number, number] | null;
  /** Where the run is expected to have converged, hatched. */
  expected?: readonly [number, number] | null;
  /** False for charts whose x is not the time of the run. */
  shared: boolean;
}

export interface LineHandlers {
  onZoom?: (range: [number, number] | null) => void;
  onPick?: (x: number) => void;
}
