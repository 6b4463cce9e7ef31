import { count, plural } from '../format';
import { view } from '../view';
import type { RunEvent } from '../wire';

/** What happened to the run; choosing one pins its step. */
export function EventList({ events }: { events: readonly RunEvent[] }) {
  if (!events.length) return null;
  return (
    <details class="events">
      <summary>{plural(events.length, 'event')}</summary>
      <ul>
        {events.map((event, i) => (
          <li key={`${event.step} ${event.kind} ${i}`}>
            <button type="button" onClick={() => view.set({ step: event.step })}>
              step {count(event.step)}
            </button>
            <b>{event.kind.replace('_', ' ')}</b>
            <span>{event.text}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}
