import { number } from '../format';
import type { Overview, PairedLosses } from '../wire';

/** The losses that are shown side by side, from training to inference. */
export const MODES = ['training', 'batch', 'recalibrated', 'inference'] as const;
export type Mode = (typeof MODES)[number];

/** A loss of a mode. Statistics at the current weights, where a probe measured them, leave out the drift of its windows. */
export function lossOf(losses: PairedLosses, mode: Mode): number | null {
  return (mode === 'recalibrated' ? losses.recalibrated_now : null) ?? losses[mode];
}

/** Whether "recalibrated" is measured at the current weights: of many batches it always is, of a probe it may not be. */
export function isFresh(losses: PairedLosses): boolean {
  return losses.batches !== null || losses.recalibrated_now !== null;
}

/** A metric's value: accuracies as percentages, others as Keras prints them. */
export function metricValue(name: string, value: number | null | undefined): string {
  if (value === null || value === undefined || !/(^|_)acc(uracy)?(_|$)/.test(name)) return number(value);
  return `${Number((100 * value).toPrecision(3))}%`;
}

/** Which batches and which step the losses are of. */
export function origin({ batches, step }: Pick<PairedLosses, 'batches' | 'step'>): string {
  if (step === null) return '';
  const at = `step ${number(step)}`;
  return batches === null ? `one batch at the last probe, ${at}` : `${batches} batches, ${at}`;
}

/** Which batches and which step the distances of the layers are of. */
export function distanceOrigin({ losses, last_step }: Pick<Overview, 'losses' | 'last_step'>): string {
  return losses.batches === null ? `last record, step ${number(last_step)}` : origin(losses);
}

/** "98.4% with batch statistics, 85.6% at inference", for a metric in both modes; null where one is missing. */
export function inBothModes(name: string, values: Record<string, number | null>): string | null {
  const { batch = null, inference = null } = values;
  if (batch === null || inference === null) return null;
  return `${metricValue(name, batch)} with batch statistics, ${metricValue(name, inference)} at inference`;
}
