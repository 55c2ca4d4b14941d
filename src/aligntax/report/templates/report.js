"use strict";
// The searchable list of changed items. Everything shown is set as text, never as markup; the page works without this script.
(() => {
  const byId = (id) => document.getElementById(id);
  const store = byId("changes-data");
  // A link to a verdict opens it.
  const reveal = () => {
    const target = location.hash.length > 1 && byId(location.hash.slice(1));
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  document.querySelectorAll('a[href^="#e"]').forEach((a) => a.addEventListener("click", () => setTimeout(reveal)));
  if (!store) return;
  const PAGE = 25, LONGEST = 4e6, ALIKE = 0.3;
  const UNSAFE = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu;
  const WORD = /\s+|[\p{L}\p{N}_]+|[^\s]/gu;
  const shown = (text) => text.replace(UNSAFE, (c) => {
    const n = c.codePointAt(0);
    return { 9: "\\t", 13: "\\r" }[n] || (n < 256 ? "\\x" + n.toString(16).padStart(2, "0") : "\\u" + n.toString(16).padStart(4, "0"));
  });
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  async function unpack() {
    const bytes = Uint8Array.from(atob(store.textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  // Longest common subsequence of words, after equal beginnings and ends are set aside; null where the texts are too long for it.
  function kept(one, two) {
    let start = 0, end = 0;
    while (start < one.length && start < two.length && one[start] === two[start]) start++;
    while (end < one.length - start && end < two.length - start && one[one.length - 1 - end] === two[two.length - 1 - end]) end++;
    const n = one.length - start - end, m = two.length - start - end;
    if (n * m > LONGEST) return null;
    const table = new Uint16Array((n + 1) * (m + 1));
    for (let i = n - 1; i >= 0; i--)
      for (let j = m - 1; j >= 0; j--)
        table[i * (m + 1) + j] = one[start + i] === two[start + j]
          ? table[(i + 1) * (m + 1) + j + 1] + 1
          : Math.max(table[(i + 1) * (m + 1) + j], table[i * (m + 1) + j + 1]);
    const same = [new Set(), new Set()];
    for (let i = 0; i < start; i++) { same[0].add(i); same[1].add(i); }
    for (let i = 1; i <= end; i++) { same[0].add(one.length - i); same[1].add(two.length - i); }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (one[start + i] === two[start + j]) { same[0].add(start + i++); same[1].add(start + j++); }
      else if (table[(i + 1) * (m + 1) + j] >= table[i * (m + 1) + j + 1]) i++;
      else j++;
    }
    return same;
  }

  function marked(words, same) {
    const block = make("pre");
    let run = "", differs = false;
    const close = () => {
      if (run) block.append(differs && run.trim() ? make("mark", run) : document.createTextNode(run));
      run = "";
    };
    words.forEach((word, i) => {
      if (same.has(i) === differs) { close(); differs = !differs; }
      run += word;
    });
    close();
    return block;
  }

  // Both answers as blocks, the words marked that the other does not have in that place; unmarked where hardly anything is shared.
  function sides(before, after) {
    const one = before.match(WORD) || [], two = after.match(WORD) || [];
    const same = kept(one, two);
    if (same === null) return [make("pre", before), make("pre", after), "too long for their differences to be marked"];
    if (2 * same[0].size < ALIKE * (one.length + two.length)) return [make("pre", before), make("pre", after), ""];
    return [marked(one, same[0]), marked(two, same[1]), ""];
  }

  function start(data) {
    const [query, direction, group, task, list, more, status] = ["q", "direction", "group", "task", "list", "more", "status"].map(byId);
    const text = (k) => (k === null ? "" : data.texts[k]);
    const answer = (reply, extracted) => {
      const [a, b] = [text(reply).trim(), text(extracted).trim()];
      return reply === null ? text(extracted) : extracted === null || a === b ? a : a + "  [extracted: " + b + "]";
    };
    const hay = new Array(data.items.length);
    const haystack = (i) => {
      const d = data.items[i];
      return (hay[i] ??= [d.task, d.label || "", d.item, ...[d.question, d.target, ...d.answers, ...d.extracted].map(text)].join("\n").toLowerCase());
    };
    data.groups.forEach((g, i) => group.append(new Option(shown(g.name), String(i))));
    [...new Set(data.items.map((d) => d.task))].sort().forEach((name) => task.append(new Option(shown(name), name)));
    group.parentElement.hidden = data.groups.length < 2;
    task.parentElement.hidden = task.options.length < 3;
    let found = [], drawn = 0;

    function row(d) {
      const box = make("details"), head = make("summary");
      head.append(
        make("span", d.lost ? "lost" : "gained", "v v-" + (d.lost ? "tax" : "gain")), " ",
        shown(d.label ? d.task + "/" + d.label : d.task) + ", item " + shown(d.item) + " (" + d.values + ") ",
        make("span", (data.groups.length > 1 ? shown(data.groups[d.group].metric) + " " : "") + shown(text(d.question).slice(0, 90).trim()), "soft"),
      );
      box.append(head);
      box.addEventListener("toggle", () => {
        if (!box.open || box.childElementCount > 1) return;
        if (d.question !== null) box.append(make("pre", shown(text(d.question).trim())));
        if (d.target !== null) box.append(make("p", "target: " + shown(text(d.target)), "soft"));
        const [before, after, said] = sides(...[0, 1].map((k) => shown(answer(d.answers[k], d.extracted[k]))));
        const pair = make("div", undefined, "flip");
        [before, after].forEach((block, k) => {
          const side = make("div");
          side.append(make("span", shown(data.groups[d.group].arms[k]), "soft"), block);
          pair.append(side);
        });
        box.append(pair);
        if (data.groups.length > 1) box.append(make("p", shown(data.groups[d.group].name), "soft"));
        if (said) box.append(make("p", said, "soft"));
      });
      return box;
    }
    function draw(count) {
      const part = document.createDocumentFragment();
      for (const i of found.slice(drawn, drawn + count)) part.append(row(data.items[i]));
      list.append(part);
      drawn = Math.min(found.length, drawn + count);
      more.hidden = drawn >= found.length;
      more.textContent = "Show " + Math.min(PAGE, found.length - drawn).toLocaleString("en") + " more";
      status.textContent = found.length.toLocaleString("en") + (found.length === 1 ? " item" : " items") + (drawn < found.length ? ", " + drawn.toLocaleString("en") + " shown" : "");
    }
    function filter() {
      const words = [...query.value.toLowerCase().matchAll(/"([^"]+)"|[^\s]+/g)].map((part) => part[1] || part[0]);
      found = [];
      data.items.forEach((d, i) => {
        if (direction.value && d.lost !== (direction.value === "lost")) return;
        if (group.value && String(d.group) !== group.value) return;
        if (task.value && d.task !== task.value) return;
        if (words.length && !words.every((word) => haystack(i).includes(word))) return;
        found.push(i);
      });
      list.replaceChildren();
      drawn = 0;
      draw(PAGE);
    }
    let waiting;
    query.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
    [direction, group, task].forEach((control) => control.addEventListener("change", filter));
    more.addEventListener("click", () => {
      const next = list.childElementCount;
      draw(PAGE);
      list.children[next]?.querySelector("summary").focus();
    });
    byId("tools").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
    filter();
    byId("examples").hidden = true;
    byId("browser").hidden = false;
  }

  unpack().then(start).catch(() => { byId("no-search").hidden = false; });
})();
