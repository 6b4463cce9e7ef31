import { momentum as beta, steps as inSteps, number } from '../format';
import { fromSlider, SLIDER_MAX, SLIDER_MIN, toSlider, type WhatIfNumbers } from '../models/momentum';
import { view } from '../view';
import { LayerName } from './LayerName';
import { Num, Term } from './Tip';

interface SliderProps {
  value: number;
  usual: number;
  framework: string;
}

/** The what-if momentum, shared by the panels of the run and of the layer. */
export function MomentumSlider({ value, usual, framework }: SliderProps) {
  return (
    <div class="slider">
      <label>
        <span>What-if momentum</span>
        <output>{beta(value, framework)}</output>
        <input
          type="range"
          min={SLIDER_MIN}
          max={SLIDER_MAX}
          step={0.05}
          value={toSlider(value)}
          aria-valuetext={`momentum ${beta(value, framework)}`}
          onInput={(e) => view.set({ momentum: rounded(fromSlider(Number(e.currentTarget.value))) })}
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

/** Two significant digits of 1 - momentum: 0.987, not 0.98741. */
function rounded(value: number): number {
  return 1 - Number((1 - value).toPrecision(2));
}

export function WhatIf({ steps, lag, noise, stepsLayer, lagLayer, noiseLayer }: WhatIfNumbers) {
  const of = (name?: string) =>
    name && (
      <span class="of">
        worst: <LayerName name={name} shared={name.slice(0, name.lastIndexOf('/') + 1)} />
      </span>
    );
  return (
    <dl class="figures">
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
