import { count, duration } from '../format';
import type { Ended, Overview } from '../wire';

/** Records of a running training are at most this far apart, in seconds, unless its steps are very slow. */
const QUIET = 300;

/** How a run ended, as far as the record says; `ended` without a plan, `unknown` for one that went quiet without a word. */
export type End = Ended | 'ended' | 'imported' | 'check' | 'running' | 'unknown';

type Told = Pick<
  Overview,
  'ended' | 'ended_step' | 'last_record' | 'last_step' | 'planned_steps' | 'imported' | 'checked'
>;

/** `now` in seconds since 1970. Null for a run without records. */
export function endOf(run: Told, now: number): End | null {
  if (run.imported) return 'imported';
  if (run.checked) return 'check';
  if (run.ended) return run.ended === 'planned' && run.planned_steps === null ? 'ended' : run.ended;
  if (run.last_step === null || run.last_record === null) return null;
  return now - run.last_record > QUIET ? 'unknown' : 'running';
}

/** One sentence on how the run ended. */
export function endText(run: Told, now: number): string {
  const end = endOf(run, now);
  const step = count(run.ended_step ?? run.last_step);
  const planned = run.planned_steps === null ? '' : ` of ${count(run.planned_steps)}`;
  switch (end) {
    case null:
      return '';
    case 'imported':
      return 'Made from checkpoints, after training.';
    case 'check':
      return 'A check of the model as it is, without training.';
    case 'planned':
      return `Ended as planned, at step ${step}.`;
    case 'ended':
      return `Ended at step ${step}.`;
    case 'early':
      return `Stopped early, at step ${step}${planned}.`;
    case 'interrupted':
      return `Interrupted at step ${step}${planned}.`;
    case 'running':
      return `Running: step ${step}${planned}.`;
    case 'unknown':
      return `The last record is ${duration(now - (run.last_record ?? now))} old, at step ${step}${planned}, and nothing says how training ended. It may have been killed.`;
  }
}

/** Whether all there is was measured at one moment, which has no course over time to draw. */
export function isMoment({ checked, records }: Pick<Overview, 'checked' | 'records'>): boolean {
  return checked && records < 2;
}
