import { useEffect, useMemo, useState } from 'preact/hooks';
import { routes } from '../api';
import { count, duration } from '../format';
import { column } from '../frame';
import { useResource } from '../hooks';
import type { Overview } from '../wire';

const OFTEN_MS = 30_000;
/** Records of a running training are at most this far apart, in seconds, unless its steps are very slow. */
const QUIET = 300;

/** Says that a run which has not reached its planned end has been quiet for a while. */
export function LastRecord({ overview }: { overview: Overview }) {
  const { run, last_step, planned_steps } = overview;
  const series = useResource(useMemo(() => routes.series(run, 'distance_rms'), [run]));
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), OFTEN_MS);
    return () => window.clearInterval(timer);
  }, []);
  const times = column(series.value, 'wall_times');
  const age = now / 1000 - (times[times.length - 1] ?? Number.NaN);
  if (last_step === null || planned_steps === null || last_step >= planned_steps || !(age > QUIET))
    return null;
  return (
    <p class="hint">
      The last record is {duration(age)} old, at step {count(last_step)} of {count(planned_steps)}. If
      training is not running any more, it stopped early.
    </p>
  );
}
