import { count } from '../format';
import { useView } from '../hooks';
import { view } from '../view';

/** What is pinned and zoomed in the charts over time, and the buttons that take it back. */
export function TimeTools() {
  const step = useView((v) => v.step);
  const range = useView((v) => v.range);
  return (
    <>
      {step !== null && (
        <button
          type="button"
          class="button small"
          aria-label={`Unpin step ${count(step)}`}
          data-tip="Values beside the lines are those of the pinned step. Escape unpins it."
          onClick={() => view.set({ step: null })}
        >
          Pinned: step {count(step)} <span aria-hidden="true">×</span>
        </button>
      )}
      {range && (
        <button type="button" class="button small" onClick={() => view.set({ range: null })}>
          Reset zoom
        </button>
      )}
    </>
  );
}
