import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { routes } from '../api';
import { count } from '../format';
import { useResource } from '../hooks';
import { runSign } from '../models/findings';
import { rowSign } from '../models/runs';
import { nameFilter } from '../models/table';
import { summaries } from '../summaries';
import type { RunEntry } from '../wire';
import { Icon } from './Icon';
import { Middle } from './Middle';

interface Props {
  label: string;
  runs: readonly RunEntry[];
  chosen: readonly string[];
  many?: boolean;
  onChoose: (run: string) => void;
}

/** A longer list is for the filter. */
const LISTED = 500;

/** A button that opens a list of runs with a filter; arrows move, Enter chooses, Escape closes. */
export function RunPicker({ label, runs, chosen, many, onChoose }: Props) {
  const [open, setOpen] = useState(false);
  const [pattern, setPattern] = useState('');
  const [active, setActive] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const id = useId();
  const found = useMemo(() => {
    const { test } = nameFilter(pattern);
    return runs.filter((entry) => test(entry.run));
  }, [runs, pattern]);
  const listed = found.slice(0, LISTED);

  // Before the paint, so that a key pressed right after the click goes to the filter.
  useLayoutEffect(() => {
    if (!open) return;
    const close = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', close);
    document.addEventListener('focusin', close);
    box.current?.querySelector('input')?.focus();
    return () => {
      document.removeEventListener('pointerdown', close);
      document.removeEventListener('focusin', close);
    };
  }, [open]);
  useEffect(() => {
    if (open) document.getElementById(`${id}-${active}`)?.scrollIntoView({ block: 'nearest' });
  }, [open, active]);

  const shut = () => {
    setOpen(false);
    button.current?.focus();
  };
  const choose = (run: string) => {
    onChoose(run);
    if (!many) shut();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Escape') shut();
    else if (event.key === 'ArrowDown') setActive(Math.min(active + 1, listed.length - 1));
    else if (event.key === 'ArrowUp') setActive(Math.max(active - 1, 0));
    else if (event.key === 'Enter' && listed[active]) choose(listed[active].run);
    else return;
    event.preventDefault();
  };
  const single = runs.find((entry) => entry.run === chosen[0]);
  return (
    <div class={`picker ${many ? 'many' : ''}`} ref={box}>
      <button
        type="button"
        class={`button ${many ? '' : 'primary'}`}
        ref={button}
        aria-haspopup="listbox"
        aria-expanded={open}
        onClick={() => {
          // The list opens where the reader is.
          if (!open)
            setActive(
              Math.max(
                0,
                listed.findIndex((entry) => entry.run === chosen[0]),
              ),
            );
          setOpen(!open);
        }}
        onKeyDown={(e) => open && e.key === 'Escape' && shut()}
      >
        {!many && single && <OwnIcon run={single.run} />}
        <span class="picker-label">{label}</span>
        <span class="picker-value" title={many ? undefined : chosen[0]}>
          {many ? chosen.length ? count(chosen.length) : '+' : <Middle text={chosen[0] ?? 'none'} />}
        </span>
        <span aria-hidden="true" class="caret" />
      </button>
      {open && (
        <div class="popover">
          <input
            type="search"
            role="combobox"
            list={undefined}
            aria-expanded="true"
            aria-controls={`${id}-list`}
            aria-activedescendant={listed.length ? `${id}-${active}` : undefined}
            aria-label={`Filter ${count(runs.length)} runs by a regular expression`}
            placeholder={`Filter ${count(runs.length)} runs by regex`}
            value={pattern}
            onInput={(e) => {
              setPattern(e.currentTarget.value);
              setActive(0);
            }}
            onKeyDown={onKeyDown}
          />
          <div
            role="listbox"
            id={`${id}-list`}
            aria-label={label}
            aria-multiselectable={many}
            tabIndex={-1}
            class="options"
          >
            {listed.map((entry, i) => (
              // biome-ignore lint/a11y/useKeyWithClickEvents: the combobox above takes the keys
              <div
                key={entry.run}
                id={`${id}-${i}`}
                role="option"
                tabIndex={-1}
                aria-selected={chosen.includes(entry.run)}
                class={`option ${i === active ? 'active' : ''}`}
                // The focus stays in the filter, where the keys are heard.
                onMouseDown={(e) => e.preventDefault()}
                onClick={() => choose(entry.run)}
                onPointerMove={() => setActive(i)}
              >
                <span class="check" aria-hidden="true">
                  {chosen.includes(entry.run) ? '✓' : ''}
                </span>
                <RunIcon entry={entry} />
                <span class="option-text">
                  <span class="option-name" title={entry.run}>
                    <Middle text={entry.run} />
                  </span>
                  <span class="option-verdict">
                    {summaries.of(entry).summary?.headline ?? 'not analysed yet'}
                  </span>
                </span>
                <span class="option-step">
                  {entry.last_step === null ? '' : `step ${count(entry.last_step)}`}
                </span>
              </div>
            ))}
          </div>
          {found.length > LISTED && (
            <p class="hint">{count(found.length - LISTED)} more runs: filter to see them</p>
          )}
          {!found.length && <p class="hint">No run matches.</p>}
        </div>
      )}
    </div>
  );
}

function RunIcon({ entry }: { entry: RunEntry }) {
  const sign = rowSign(summaries.of(entry));
  return sign ? <Icon sign={sign} size={14} /> : <span class="icon-space" />;
}

/** The sign of the run whose page this is, as soon as the page has it. */
function OwnIcon({ run }: { run: string }) {
  const { value } = useResource(useMemo(() => routes.overview(run), [run]));
  return value && <Icon sign={runSign(value)} size={14} />;
}
