import { useState } from 'preact/hooks';
import { count, plural } from '../format';
import { notable } from '../time';
import { view } from '../view';
import type { RunEvent } from '../wire';

const SHOWN = 500;
const OPEN = 6;

/** What happened to the run; a click on an event pins its step. */
export function EventList({ events }: { events: readonly RunEvent[] }) {
  // A few that matter are shown at once; later only the reader opens and closes the list.
  const [opened] = useState(() => events.length <= OPEN && notable(events).length > 0);
  if (!events.length) return null;
  return (
    <details class="events" open={opened}>
      <summary>{plural(events.length, 'event')}</summary>
      <ul>
        {events.slice(0, SHOWN).map((event, i) => (
          <li key={`${event.step} ${event.kind} ${i}`}>
            <button type="button" onClick={() => view.set({ step: event.step })}>
              step {count(event.step)}
            </button>
            <b>{event.kind.replace('_', ' ')}</b>
            <span>{event.text}</span>
          </li>
        ))}
        {events.length > SHOWN && <li>{count(events.length - SHOWN)} more: the JSON report has all</li>}
      </ul>
    </details>
  );
}
