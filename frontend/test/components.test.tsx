import { cleanup, fireEvent, render, screen, within } from '@testing-library/preact';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FindingCards } from '../src/components/FindingCards';
import { LayerDetail } from '../src/components/LayerDetail';
import { LayerTable } from '../src/components/LayerTable';
import { RunEnd } from '../src/components/RunEnd';
import { RunPicker } from '../src/components/RunPicker';
import { Empty } from '../src/components/States';
import { Verdict } from '../src/components/Verdict';
import { DEFAULT_VIEW } from '../src/link';
import { view } from '../src/view';
import type { Overview } from '../src/wire';
import { finding, LOSSES, layer, overview } from './samples';

const HOSTILE = '<img src=x onerror="alert(1)">';

beforeEach(() => {
  view.set(DEFAULT_VIEW);
  vi.stubGlobal('fetch', () => new Promise(() => {}));
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

describe('verdict', () => {
  it('shows the sentence whole, the losses and the decomposition in words', () => {
    render(<Verdict overview={overview()} />);
    expect(screen.getByRole('heading', { level: 1 }).textContent).toBe(overview().verdict);
    expect(screen.getByText('15,126')).toBeTruthy();
    expect(screen.getByRole('img', { name: /stale statistics \+15,125/ })).toBeTruthy();
  });
  it('gives every metric in every mode, and says what the figures are of', () => {
    const { rerender } = render(<Verdict overview={overview()} />);
    const row = screen.getByRole('rowheader', { name: 'accuracy' }).closest('tr');
    expect(row?.textContent).toBe('accuracy98.4%98.4%98.1%85.6%');
    expect(document.querySelector('.chain-title')?.textContent).toBe('Training data: 24 batches, step 400');
    rerender(<Verdict overview={overview({ losses: { ...LOSSES, batches: null, metrics: {} } })} />);
    expect(document.querySelector('.chain-title')?.textContent).toContain('one batch at the last probe');
  });
  it('says why a loss is missing', () => {
    const losses = {
      ...LOSSES,
      training: null,
      not_evaluated: { training: 'The model was compiled without a loss.' },
    };
    render(<Verdict overview={overview({ losses })} />);
    expect(screen.getByText('not evaluated').getAttribute('data-tip')).toContain('compiled without a loss');
  });
  it('tells a loss that overflowed from one that was not measured', () => {
    render(
      <Verdict overview={overview({ losses: { ...LOSSES, inference: null, overflowed: ['inference'] } })} />,
    );
    expect(screen.getByText('not finite')).toBeTruthy();
  });
});

describe('momentum', () => {
  it.each([
    ['keras', '0.999', '0.9'],
    ['torch', '0.001', '0.1'],
  ])('is shown as %s sets it, the replayed ones too', (framework, own, replayed) => {
    const one = layer({ momentum: 0.999, replayed: [{ momentum: 0.9, distance: 0.1 }] });
    render(<LayerDetail overview={overview({ framework, layers: [one] })} layer={one} />);
    expect(screen.getByRole('button', { name: `Reset (${own})` })).toBeTruthy();
    expect(screen.getByRole('slider').getAttribute('aria-valuetext')).toBe(`momentum ${own}`);
    expect(screen.getByRole('rowheader', { name: replayed })).toBeTruthy();
    expect(document.querySelector('.facts')?.textContent).toContain(`momentum${own}`);
  });
});

describe('how a run ended', () => {
  const now = () => Date.now() / 1000;
  const shown = (change: Partial<Overview>) => {
    render(<RunEnd overview={overview(change)} />);
    return document.querySelector('.run-end')?.textContent ?? null;
  };
  const open = { ended: null, ended_step: null, planned_steps: 1000 } as const;
  it('is told for a run that ended', () => {
    expect(shown({ ended: 'early', ended_step: 390, planned_steps: 1000 })).toBe(
      'Stopped early, at step 390 of 1,000.',
    );
  });
  it('is unknown for a run that went quiet', () => {
    expect(shown({ ...open, last_record: now() - 720 })).toMatch(
      /^The last record is 12 min old, at step 400 of 1,000, and nothing says how/,
    );
  });
  it('shows a run that has just written as running', () => {
    expect(shown({ ...open, last_record: now() - 10 })).toBe('Running: step 400 of 1,000.');
  });
  it('does not apply to an import or to an empty run', () => {
    expect(shown({ ...open, imported: true, last_record: now() - 10 })).toMatch(/^Made from checkpoints/);
    cleanup();
    expect(shown({ ...open, last_step: null, last_record: null })).toBeNull();
  });
});

describe('what to do', () => {
  const rescue = 'tb_bnlens.recalibrate(model, data)';
  it('stands beside the verdict with the loss it was measured to give, and not in the card', () => {
    const shown = overview({ findings: [finding({ rescue, rescue_loss: 1.3 })] });
    render(
      <>
        <Verdict overview={shown} />
        <FindingCards overview={shown} />
      </>,
    );
    expect(screen.getAllByText(rescue).length).toBe(1);
    const group = within(screen.getByRole('group', { name: 'What to do' }));
    expect(group.getByText(rescue)).toBeTruthy();
    expect(group.getByText(/instead of 15,126, measured/).textContent).toContain('24 batches, step 400');
  });
  it('leaves notes in their cards', () => {
    render(<Verdict overview={overview({ findings: [finding({ severity: 'info', rescue })] })} />);
    expect(screen.queryByRole('group', { name: 'What to do' })).toBeNull();
  });
});

describe('findings', () => {
  it('opens failures, folds the rest, and keeps symptoms under their cause', () => {
    const findings = [
      finding({}),
      finding({ rule: 'gap', title: 'A gap', explained_by: 'momentum-too-high' }),
      finding({ rule: 'quiet', title: 'Silenced one', silenced: true }),
      finding({ rule: 'ok', status: 'pass', severity: 'none', title: 'All finite' }),
    ];
    render(<FindingCards overview={overview({ findings })} />);
    expect(screen.getAllByRole('heading', { level: 3 }).map((h) => h.textContent)).toEqual([
      'Momentum too high for this run',
    ]);
    expect(screen.getByText('1 passed')).toBeTruthy();
    expect(screen.getByText('1 silenced')).toBeTruthy();
    expect(screen.getByText('Also explains (1)').parentElement?.textContent).toContain('A gap');
    // Beside the fix, and again in the folded evidence.
    expect(screen.getAllByText('11,635').length).toBe(2);
  });
  it('is chosen and let go with the keyboard’s own button', () => {
    render(<FindingCards overview={overview()} />);
    const button = screen.getByRole('button', { name: 'Highlight' });
    fireEvent.click(button);
    expect(view.get().finding).toBe('momentum-too-high');
    fireEvent.click(button);
    expect(view.get().finding).toBeNull();
  });
  it('says so when nothing failed', () => {
    render(<FindingCards overview={overview({ findings: [] })} />);
    expect(screen.getByText('none')).toBeTruthy();
  });
});

describe('layer table', () => {
  const layers = Array.from({ length: 3000 }, (_, i) => layer({ index: i, order: i, name: `block_${i}/bn` }));

  it('draws few of thousands of rows, and tells their number', () => {
    render(<LayerTable overview={overview({ layers })} layer={0} />);
    expect(screen.getAllByRole('row').length).toBeLessThan(60);
    expect(screen.getByRole('grid').getAttribute('aria-rowcount')).toBe('3001');
  });
  it('filters by regex', () => {
    render(<LayerTable overview={overview({ layers })} layer={0} />);
    fireEvent.input(screen.getByRole('searchbox'), { target: { value: 'block_299\\d/' } });
    expect(screen.getByText(/^10 of 3,000 layers/)).toBeTruthy();
  });
  it('moves with the arrow keys', () => {
    view.set({ layer: 0 });
    render(<LayerTable overview={overview({ layers })} layer={0} />);
    fireEvent.keyDown(screen.getByRole('grid'), { key: 'ArrowDown' });
    expect(view.get().layer).toBe(1);
    fireEvent.keyDown(screen.getByRole('grid'), { key: 'End' });
    expect(view.get().layer).toBe(2999);
  });
  it('keeps its rows, focus and filter when live data comes in', () => {
    const { rerender } = render(<LayerTable overview={overview({ layers })} layer={0} />);
    const grid = screen.getByRole('grid');
    grid.focus();
    const row = within(grid).getByTitle('block_3/bn');
    rerender(
      <LayerTable overview={overview({ layers: layers.map((l) => ({ ...l, distance: 0.1 })) })} layer={0} />,
    );
    expect(within(grid).getByTitle('block_3/bn')).toBe(row);
    expect(document.activeElement).toBe(grid);
  });
  it('shows every name as text', () => {
    render(<LayerTable overview={overview({ layers: [layer({ name: HOSTILE })] })} layer={0} />);
    expect(screen.getByTitle(HOSTILE).textContent).toBe(HOSTILE);
    expect(document.querySelector('img')).toBeNull();
  });
});

describe('run picker', () => {
  const runs = Array.from({ length: 600 }, (_, i) => ({
    run: `exp/${i}`,
    severity: null,
    verdict: null,
    last_step: i,
    summary: null,
  }));

  it('filters hundreds of runs and chooses with the keyboard', () => {
    const choose = vi.fn();
    render(<RunPicker label="Run" runs={runs} chosen={['exp/3']} onChoose={choose} />);
    fireEvent.click(screen.getByRole('button'));
    expect(screen.getAllByRole('option').length).toBe(500);
    const input = screen.getByRole('combobox');
    // The list opens where the reader is.
    expect(document.querySelector('.option.active')?.textContent).toContain('exp/3');
    fireEvent.input(input, { target: { value: '49\\d$' } });
    expect(screen.getAllByRole('option').length).toBe(10);
    fireEvent.keyDown(input, { key: 'ArrowDown' });
    fireEvent.keyDown(input, { key: 'Enter' });
    expect(choose).toHaveBeenCalledWith('exp/491');
    expect(screen.queryByRole('listbox')).toBeNull();
  });
  it('closes on Escape and gives the focus back', () => {
    render(<RunPicker label="Run" runs={runs} chosen={[]} onChoose={() => {}} />);
    fireEvent.click(screen.getByRole('button'));
    fireEvent.keyDown(screen.getByRole('combobox'), { key: 'Escape' });
    expect(document.activeElement).toBe(screen.getByRole('button'));
  });
});

it('says which lines to add where there is no data', () => {
  render(<Empty />);
  expect(screen.getByText(/callbacks=\[BNLens\("runs\/exp1"\)\]/)).toBeTruthy();
  expect(screen.getByText('tb_bnlens.torch.Recorder')).toBeTruthy();
});
