import { count, plural } from '../format';
import { view } from '../view';
import type { RunEvent } from '../wire';

const SHOWN = 500;

/** What happened to the run; a click on an event pins its step. */
export function EventList({ events }: { events: readonly RunEvent[] }) {
  if (!events.length) return null;
  return (
    <details class="events">
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
