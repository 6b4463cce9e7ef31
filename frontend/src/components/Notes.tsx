import { count, percent, plural } from '../format';
import type { Overview } from '../wire';
import { Num } from './Tip';

/** What the record rests on, and what it lacks. */
export function Notes({ overview }: { overview: Overview }) {
  const { notes, records, probes, overhead, batch_size, replicas, planned_steps, tolerance } = overview;
  return (
    <footer class="notes">
      <p>
        {plural(records, 'record')} and {plural(probes, 'probe')} of paired losses
        {batch_size !== null && ` · batch size ${count(batch_size)}`}
        {replicas > 1 && ` · ${replicas} replicas`}
        {planned_steps !== null && ` · ${count(planned_steps)} steps planned`}
        {` · tolerance ${percent(tolerance)}`}
        {overhead !== null && (
          <>
            {' · recording took '}
            <Num k="overhead">{percent(overhead)}</Num> of training time
          </>
        )}
      </p>
      {notes.length > 0 && (
        <ul>
          {notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </footer>
  );
}
