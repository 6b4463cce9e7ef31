import type uPlot from 'uplot';
import { color } from '../theme';
import type { LineSpec } from './lineSpec';

const GAP = 14;
/** How near to a mark the pointer shows its text, CSS pixels, and how many texts at once. */
const NEAR = 8;
const MOST_EVENTS = 4;

/** Step and values under the pointer, beside it. Only the chart under the pointer shows its own. */
export class Tooltip {
  private readonly box = document.createElement('div');

  constructor(private readonly plot: uPlot) {
    this.box.className = 'chart-tip';
    this.box.hidden = true;
    this.box.setAttribute('aria-hidden', 'true');
    plot.over.append(this.box);
    plot.over.addEventListener('mouseleave', () => {
      this.box.hidden = true;
    });
  }

  show(spec: LineSpec | null): void {
    const { idx, left = -1 } = this.plot.cursor;
    if (!spec?.where || idx === null || idx === undefined || left < 0 || !this.plot.over.matches(':hover')) {
      this.box.hidden = true;
      return;
    }
    const rows = spec.lines.flatMap((line) => {
      const value = line.values[idx];
      if (line.legend === false || line.bandToNext || value === null || value === undefined) return [];
      const row = document.createElement('div');
      const swatch = document.createElement('i');
      swatch.style.background = line.color.startsWith('#') ? line.color : color(line.color);
      const text = document.createElement('b');
      text.textContent = spec.yFormat(value);
      row.append(swatch, `${line.label} `, text);
      return [row];
    });
    const head = document.createElement('div');
    head.textContent = spec.where(spec.x[idx]);
    const events = spec.marks.flatMap(({ x, label, text, kind }) => {
      if (kind !== 'event' || Math.abs(this.plot.valToPos(x, 'x') - left) > NEAR) return [];
      const event = document.createElement('div');
      event.className = 'event';
      event.textContent = text ? `${label}: ${text}` : label;
      return [event];
    });
    this.box.replaceChildren(head, ...rows, ...events.slice(0, MOST_EVENTS));
    this.box.hidden = false;
    const { clientWidth } = this.plot.over;
    const width = this.box.offsetWidth;
    const right = left + GAP + width <= clientWidth;
    this.box.style.left = `${Math.max(0, right ? left + GAP : left - GAP - width)}px`;
  }
}
