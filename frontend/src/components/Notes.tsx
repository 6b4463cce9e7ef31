import { count, percent, plural } from '../format';
import type { Overview } from '../wire';
import { Num } from './Tip';

/** Size of the record, settings of the run, and what is missing. */
export function Notes({ overview }: { overview: Overview }) {
  const { verdict, records, probes, overhead, batch_size, replicas, planned_steps, tolerance } = overview;
  // What the verdict says is not said again.
  const notes = overview.notes.filter((note) => !verdict.includes(note));
  return (
    <footer class="notes">
      <p>
        {plural(records, 'record')} of the statistics, {plural(probes, 'probe')} of the losses
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
