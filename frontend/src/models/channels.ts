/** Channel snapshots of one layer: `values` is [S, 4, C] in the order of metadata.CHANNEL_ROWS. */
export interface ChannelData {
  steps: ArrayLike<number>;
  values: ArrayLike<number>;
  channels: number;
}

export type Statistic = 'mean' | 'variance';

export interface ChannelPoint {
  channel: number;
  batch: number;
  moving: number;
  /** 2-Wasserstein distance of the channel's normalized outputs; NaN where not finite. */
  distance: number;
}

/** One point a channel, in order of the moving value (a chart wants its x sorted). */
export function channelPoints(
  data: ChannelData,
  snapshot: number,
  statistic: Statistic,
  epsilon: number,
): ChannelPoint[] {
  const base = snapshot * 4 * data.channels;
  const at = (row: number, channel: number) => data.values[base + row * data.channels + channel];
  const points: ChannelPoint[] = [];
  for (let c = 0; c < data.channels; c++) {
    const [mean, variance, movingMean, movingVariance] = [at(0, c), at(1, c), at(2, c), at(3, c)];
    points.push({
      channel: c,
      batch: statistic === 'mean' ? mean : variance,
      moving: statistic === 'mean' ? movingMean : movingVariance,
      distance: distance(mean, variance, movingMean, movingVariance, epsilon),
    });
  }
  return points.sort((a, b) => a.moving - b.moving);
}

/** "Distance" in docs/design.md: W = sqrt((a-1)^2 + b^2). */
export function distance(
  mean: number,
  variance: number,
  moving: number,
  spread: number,
  eps: number,
): number {
  const a = Math.sqrt((variance + eps) / (spread + eps));
  const b = (mean - moving) / Math.sqrt(spread + eps);
  return Math.hypot(a - 1, b);
}

/** Worst first; a channel that is not finite is worse than any number. */
export function worstChannels(points: readonly ChannelPoint[], size: number): ChannelPoint[] {
  const rank = (p: ChannelPoint) => (Number.isFinite(p.distance) ? p.distance : Number.POSITIVE_INFINITY);
  return points
    .slice()
    .sort((a, b) => rank(b) - rank(a))
    .slice(0, size);
}

const SPREAD_FOR_LOG = 5;
/** Of epsilon: the layer cannot tell variances below it apart, and that of a dead channel would stretch the axis to 1e-43. */
const LEAST = 0.01;

/** Where the points are drawn. Both axes are log or neither, or else agreement would not be a straight line. */
export function channelScale(
  points: readonly ChannelPoint[],
  statistic: Statistic,
  epsilon: number,
): { moving: number[]; batch: number[]; log: boolean } {
  const least = statistic === 'variance' ? LEAST * epsilon : Number.NEGATIVE_INFINITY;
  const moving = points.map((p) => Math.max(p.moving, least));
  const batch = points.map((p) => Math.max(p.batch, least));
  const all = [...moving, ...batch];
  const low = all.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = all.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return { moving, batch, log: low > 0 && high / low > SPREAD_FOR_LOG };
}
