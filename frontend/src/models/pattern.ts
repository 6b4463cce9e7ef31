/**
 * Regular expressions that match in time linear in the text. The browser's own take exponential time for some patterns,
 * and a page cannot interrupt them. No backreferences, lookarounds or word boundaries; case is ignored.
 */

const LONGEST_PATTERN = 200;
const MOST_INSTRUCTIONS = 2000;
/** A longer text is searched in its beginning and its end only. */
const LONGEST_TEXT = 2000;

type Instruction =
  | { op: 'char'; test: (c: string) => boolean }
  | { op: 'split'; first: number; second: number }
  | { op: 'jump'; to: number }
  | { op: 'start' | 'end' | 'match' };

/**
 * A function that tells whether a text has a match.
 *
 * Throws a SyntaxError where the pattern is not understood or too long.
 */
export function compilePattern(pattern: string): (text: string) => boolean {
  if (pattern.length > LONGEST_PATTERN) throw new SyntaxError(`more than ${LONGEST_PATTERN} characters`);
  const program = new Compiler(pattern).program();
  return (text) => search(program, shortened(text).toLowerCase());
}

function shortened(text: string): string {
  const half = LONGEST_TEXT / 2;
  return text.length > LONGEST_TEXT ? `${text.slice(0, half)}\n${text.slice(-half)}` : text;
}

/** Follows all alternatives at once, a character at a time. */
function search(program: readonly Instruction[], text: string): boolean {
  const marked = new Int32Array(program.length).fill(-1);
  let current: number[] = [];
  for (let at = 0; at <= text.length; at++) {
    // A match may start anywhere.
    const waiting = [...current, 0];
    current = [];
    const characters: number[] = [];
    while (waiting.length) {
      const index = waiting.pop() as number;
      if (marked[index] === at) continue;
      marked[index] = at;
      const step = program[index];
      if (step.op === 'match') return true;
      if (step.op === 'char') characters.push(index);
      else if (step.op === 'jump') waiting.push(step.to);
      else if (step.op === 'split') waiting.push(step.first, step.second);
      else if (at === (step.op === 'start' ? 0 : text.length)) waiting.push(index + 1);
    }
    for (const index of characters) {
      const step = program[index];
      if (at < text.length && step.op === 'char' && step.test(text[at])) current.push(index + 1);
    }
  }
  return false;
}

const CLASSES: Record<string, (c: string) => boolean> = {
  d: (c) => /\d/.test(c),
  D: (c) => /\D/.test(c),
  w: (c) => /\w/.test(c),
  W: (c) => /\W/.test(c),
  s: (c) => /\s/.test(c),
  S: (c) => /\S/.test(c),
};

/** Characters from one to another; the text is in lower case, the ends are as they were typed. */
function between(low: string, high: string): (c: string) => boolean {
  return (c) => (low <= c && c <= high) || (low <= c.toUpperCase() && c.toUpperCase() <= high);
}

/** Recursive descent; emits instructions as it reads. */
class Compiler {
  private at = 0;
  private out: Instruction[] = [];

  constructor(private readonly pattern: string) {}

  program(): Instruction[] {
    this.alternatives();
    if (this.at < this.pattern.length) throw new SyntaxError('unmatched )');
    this.emit({ op: 'match' });
    return this.out;
  }

  private emit(instruction: Instruction): void {
    if (this.out.length >= MOST_INSTRUCTIONS) throw new SyntaxError('too many repetitions');
    this.out.push(instruction);
  }

  private alternatives(): void {
    const begin = this.out.length;
    this.sequence();
    if (this.pattern[this.at] !== '|') return;
    this.at++;
    const left = this.cut(begin);
    this.emit({ op: 'split', first: begin + 1, second: begin + left.length + 2 });
    this.place(left, begin);
    const leave: Instruction & { op: 'jump' } = { op: 'jump', to: 0 };
    this.emit(leave);
    this.alternatives();
    leave.to = this.out.length;
  }

  private sequence(): void {
    while (this.at < this.pattern.length && this.pattern[this.at] !== '|' && this.pattern[this.at] !== ')') {
      const begin = this.out.length;
      this.atom();
      for (let times = this.repetition(); times; times = this.repetition()) {
        this.repeat(this.cut(begin), begin, ...times);
      }
    }
  }

  private atom(): void {
    const c = this.pattern[this.at++];
    if (c === '(') {
      if (this.pattern[this.at] === '?') {
        if (this.pattern[this.at + 1] !== ':') throw new SyntaxError('only (?: groups');
        this.at += 2;
      }
      this.alternatives();
      if (this.pattern[this.at++] !== ')') throw new SyntaxError('missing )');
    } else if (c === '[') this.emit({ op: 'char', test: this.set() });
    else if (c === '.') this.emit({ op: 'char', test: (x) => x !== '\n' });
    else if (c === '^') this.emit({ op: 'start' });
    else if (c === '$') this.emit({ op: 'end' });
    else if (c === '\\') this.emit({ op: 'char', test: this.escape() });
    else if ('*+?{'.includes(c)) throw new SyntaxError(`nothing to repeat before ${c}`);
    else this.emit({ op: 'char', test: between(c, c) });
  }

  private escape(): (c: string) => boolean {
    const c = this.pattern[this.at++];
    if (c === undefined) throw new SyntaxError('\\ at the end');
    if (c in CLASSES) return CLASSES[c];
    if (/[a-z0-9]/i.test(c)) throw new SyntaxError(`\\${c} is not supported`);
    return between(c, c);
  }

  private set(): (c: string) => boolean {
    const negated = this.pattern[this.at] === '^';
    if (negated) this.at++;
    const tests: ((c: string) => boolean)[] = [];
    for (let first = true; first || this.pattern[this.at] !== ']'; first = false) {
      const low = this.pattern[this.at++];
      if (low === undefined) throw new SyntaxError('missing ]');
      if (low === '\\') tests.push(this.escape());
      else if (
        this.pattern[this.at] === '-' &&
        this.at + 1 < this.pattern.length &&
        this.pattern[this.at + 1] !== ']'
      ) {
        const high = this.pattern[this.at + 1];
        this.at += 2;
        tests.push(between(low, high));
      } else tests.push(between(low, low));
    }
    this.at++;
    return (c) => tests.some((test) => test(c)) !== negated;
  }

  /** [least, most] of the quantifier here, null where there is none. A lazy one matches the same texts. */
  private repetition(): [number, number] | null {
    const found = /^(?:([*+?])|\{(\d{1,4})(,(\d{0,4}))?\})\??/.exec(this.pattern.slice(this.at));
    if (!found) return null;
    this.at += found[0].length;
    const [, sign, least, comma, most] = found;
    if (sign) return [sign === '+' ? 1 : 0, sign === '?' ? 1 : Number.POSITIVE_INFINITY];
    const high = comma ? (most ? Number(most) : Number.POSITIVE_INFINITY) : Number(least);
    if (high < Number(least)) throw new SyntaxError('numbers out of order');
    return [Number(least), high];
  }

  private repeat(part: readonly Instruction[], begin: number, least: number, most: number): void {
    for (let i = 0; i < least; i++) this.place(part, begin);
    const loop = this.out.length;
    if (most === Number.POSITIVE_INFINITY) {
      this.emit({ op: 'split', first: loop + 1, second: loop + part.length + 2 });
      this.place(part, begin);
      this.emit({ op: 'jump', to: loop });
      return;
    }
    for (let i = least; i < most; i++) {
      const here = this.out.length;
      this.emit({ op: 'split', first: here + 1, second: here + part.length + 1 });
      this.place(part, begin);
    }
  }

  /** Takes the instructions from `begin` back. */
  private cut(begin: number): Instruction[] {
    return this.out.splice(begin);
  }

  /** Emits instructions compiled for position `from`, with their targets moved. */
  private place(part: readonly Instruction[], from: number): void {
    const by = this.out.length - from;
    for (const step of part) {
      if (step.op === 'split') this.emit({ ...step, first: step.first + by, second: step.second + by });
      else if (step.op === 'jump') this.emit({ ...step, to: step.to + by });
      else this.emit(step);
    }
  }
}
