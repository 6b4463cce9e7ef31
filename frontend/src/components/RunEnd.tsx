import { useEffect, useState } from 'preact/hooks';
import { endOf, endText } from '../models/end';
import { storedAt } from '../stored';
import type { Overview } from '../wire';

const OFTEN_MS = 30_000;

/** Seconds since 1970, as often as a word on the age of a record needs; in a saved page, when it was saved. */
export function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), OFTEN_MS);
    return () => window.clearInterval(timer);
  }, []);
  return storedAt() ?? now / 1000;
}

/** How the run ended, or that it still runs. */
export function RunEnd({ overview }: { overview: Overview }) {
  const now = useNow();
  const end = endOf(overview, now);
  if (end === null) return null;
  return <p class={`run-end ${end}`}>{endText(overview, now)}</p>;
}
