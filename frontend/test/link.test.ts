import { describe, expect, it } from 'vitest';
import { DEFAULT_VIEW, readLink, sameLink, type View, writeLink } from '../src/link';

describe('deep link', () => {
  it('comes back as it was written, whatever the names', () => {
    const view: View = {
      ...DEFAULT_VIEW,
      run: 'a&b=c/<i>%',
      compare: ['x y', 'é#'],
      finding: 'momentum-too-high',
      layer: 3,
      step: 120,
      axis: 'wall',
      row: 'mean_error_p95',
      smoothing: 0.6,
    };
    const { live: _live, range: _range, momentum: _momentum, ...linked } = view;
    expect(readLink(writeLink('#bn_lens', view))).toEqual(linked);
  });
  it('leaves the host’s and other plugins’ part alone', () => {
    const hash = '#bn_lens&p.bn_lens.run=old&runFilter=x&p.other.run=1';
    expect(writeLink(hash, { ...DEFAULT_VIEW, run: 'new' })).toBe(
      '#bn_lens&runFilter=x&p.other.run=1&p.bn_lens.run=new',
    );
  });
  it('knows itself again', () => {
    const view: View = { ...DEFAULT_VIEW, run: 'a', layer: 2, range: [1, 2], momentum: 0.9 };
    expect(sameLink(readLink(writeLink('#scalars', view)), view)).toBe(true);
    expect(sameLink({ run: 'a' }, view)).toBe(false);
  });
  it('ignores what it does not understand', () => {
    expect(
      readLink('#bn_lens&p.bn_lens.layer=-1&p.bn_lens.x=up&p.bn_lens.run=%E0%A4&p.bn_lens.new=1'),
    ).toEqual({
      run: '%E0%A4',
    });
  });
});
