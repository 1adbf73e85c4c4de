/** Components that are rendered again only when one of their properties is another. */
import { Component, h, type ComponentType, type FunctionComponent } from "preact";

export function memo<P extends object>(render: FunctionComponent<P>): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const names = new Set([...Object.keys(next), ...Object.keys(this.props)]) as Set<keyof P>;
      return [...names].some((name) => next[name] !== (this.props as Readonly<P>)[name]);
    }
    override render() {
      return h(render, this.props as P);
    }
  };
}
