/** Colours of runs side by side, distinct in both themes; the order is the order of choosing. */
const RUN_COLORS = ['#e8710a', '#12a4b8', '#a35fe0', '#d9398f', '#6fa32f', '#c79200', '#5b7fd6', '#8b98a5'];

export function runColor(place: number): string {
  return RUN_COLORS[place % RUN_COLORS.length];
}

/** One run for each colour. */
export const MOST_COMPARED = RUN_COLORS.length;
