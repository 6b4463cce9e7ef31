import type { ComponentChildren } from 'preact';
import { momentum as beta, steps as inSteps, number } from '../format';
import {
  type Replays,
  SLIDER_MAX,
  SLIDER_MIN,
  SLIDER_STEP,
  settled,
  toSlider,
  type WhatIfNumbers,
} from '../models/momentum';
import { view } from '../view';
import { LayerName } from './LayerName';
import { Num, Term } from './Tip';

interface SliderProps {
  value: number;
  usual: number;
  framework: string;
  /** Where the slider settles. */
  replays: Replays;
}

/** The what-if momentum, shared by the panels of the run and of the layer. */
export function MomentumSlider({ value, usual, framework, replays }: SliderProps) {
  return (
    <div class="slider">
      <label>
        <span>What-if momentum</span>
        <output>{beta(value, framework)}</output>
        <input
          type="range"
          min={SLIDER_MIN}
          max={SLIDER_MAX}
          step={SLIDER_STEP}
          value={toSlider(value)}
          aria-valuetext={`momentum ${beta(value, framework)}`}
          onInput={(e) => view.set({ momentum: settled(Number(e.currentTarget.value), replays) })}
        />
      </label>
      <button
        type="button"
        class="button small"
        disabled={value === usual}
        onClick={() => view.set({ momentum: null })}
      >
        Reset ({beta(usual, framework)})
      </button>
    </div>
  );
}

interface WhatIfProps extends WhatIfNumbers {
  /** Further figures, before the others. */
  children?: ComponentChildren;
}

export function WhatIf({ steps, lag, noise, stepsLayer, lagLayer, noiseLayer, children }: WhatIfProps) {
  const of = (name?: string) =>
    name && (
      <span class="of">
        worst: <LayerName name={name} shared={name.slice(0, name.lastIndexOf('/') + 1)} />
      </span>
    );
  return (
    <dl class="figures">
      {children}
      <div>
        <dt>
          <Term k="steps" />
        </dt>
        <dd>
          <Num k="steps">{inSteps(steps)}</Num>
          {steps !== null && <span class="unit"> updates</span>}
          {of(stepsLayer)}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="lag" />
        </dt>
        <dd>
          <Num k="lag">{number(lag)}</Num>
          {lag !== null && <span class="unit"> sd</span>}
          {of(lagLayer)}
        </dd>
      </div>
      <div>
        <dt>
          <Term k="noise_floor" />
        </dt>
        <dd>
          <Num k="noise_floor">{number(noise)}</Num>
          {noise !== null && <span class="unit"> sd</span>}
          {of(noiseLayer)}
        </dd>
      </div>
    </dl>
  );
}
