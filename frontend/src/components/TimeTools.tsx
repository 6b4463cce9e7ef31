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
          data-tip="The legends show the values at this step. Escape unpins it too."
          onClick={() => view.set({ step: null })}
        >
          Unpin step {count(step)}
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
