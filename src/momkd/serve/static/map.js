// A slide under a map: OpenSeadragon shows the slide, one small canvas over it holds a pixel block for every patch.
/* global OpenSeadragon */

const MOST = 4096; // pixels of the longer side of the canvas
const BLOCK = 16; // pixels of a patch, where there is room

function bytes(text) {
  return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
}

export class SlideMap {
  constructor(place, view, address, tell) {
    this.view = view;
    this.address = address;
    this.signs = new Map([[1, true], [-1, true]]);
    this.x = new Int32Array(bytes(view.patches.x).buffer);
    this.y = new Int32Array(bytes(view.patches.y).buffer);
    this.colours = Object.fromEntries(Object.entries(view.colours).map(([look, text]) => [look, bytes(text)]));
    this.layers = new Map(view.layers.map((layer) => [layer.name, { ...layer, values: bytes(layer.values) }]));
    this.canvas = document.createElement("canvas");
    this.canvas.className = "map";
    const { extent } = view;
    this.scale = Math.min(BLOCK / view.patch_size, MOST / Math.max(extent.width, extent.height));
    this.canvas.width = Math.max(1, Math.round(extent.width * this.scale));
    this.canvas.height = Math.max(1, Math.round(extent.height * this.scale));
    this.viewer = this.open(place, tell);
  }

  open(place, tell) {
    const viewer = OpenSeadragon({
      element: place, showNavigationControl: false, showNavigator: Boolean(this.view.slide), maxZoomPixelRatio: 4,
      tileSources: this.view.slide ? this.slide() : this.paper(), animationTime: 0.6, crossOriginPolicy: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, drawer: "canvas",
    });
    viewer.addHandler("open", () => {
      viewer.addOverlay({ element: this.canvas, location: this.rectangle(this.view.extent) });
      const { x, y, width, height } = this.view.extent;
      const edge = 0.05 * Math.max(width, height);
      const around = { x: x - edge, y: y - edge, width: width + 2 * edge, height: height + 2 * edge };
      viewer.viewport.fitBounds(this.rectangle(around), true);
      place.dataset.open = "yes";
    });
    new OpenSeadragon.MouseTracker({
      element: viewer.canvas,
      moveHandler: (event) => {
        const point = viewer.viewport.viewerElementToImageCoordinates(event.position);
        tell(this.words(this.at(point.x + this.origin.x, point.y + this.origin.y)));
      },
      leaveHandler: () => tell(""),
    });
    return viewer;
  }

  close() {
    delete this.viewer.element.dataset.open;
    this.viewer.destroy();
  }

  // Where the picture begins, in level-0 pixels of the slide.
  get origin() {
    return this.view.slide ? { x: 0, y: 0 } : this.view.extent;
  }

  slide() {
    const { width, height, tile, levels } = this.view.slide;
    return {
      width, height, tileSize: tile, tileOverlap: 0, minLevel: 8 > levels ? 0 : 8, maxLevel: levels,
      getTileUrl: (level, column, row) => `${this.address}/tiles/${level}/${column}_${row}.jpg`,
    };
  }

  paper() {
    const { width, height } = this.view.extent;
    const white = document.createElement("canvas");
    white.width = white.height = 1;
    const context = white.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, 1, 1);
    const url = white.toDataURL();
    return { width, height, tileSize: Math.max(width, height), tileOverlap: 0, minLevel: 0, maxLevel: 0, getTileUrl: () => url };
  }

  // A rectangle in level-0 pixels → OpenSeadragon's units, in which the picture is one wide.
  rectangle({ x, y, width, height }) {
    const whole = this.view.slide ? this.view.slide.width : this.view.extent.width;
    return new OpenSeadragon.Rect((x - this.origin.x) / whole, (y - this.origin.y) / whole, width / whole, height / whole);
  }

  choose(name) {
    this.layer = this.layers.get(name);
    this.paint();
    return this.layer;
  }

  paint() {
    const { values, look, low, high } = this.layer;
    const table = this.colours[look];
    const context = this.canvas.getContext("2d");
    const { extent, patch_size: size } = this.view;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < values.length; i += 1) {
      const value = low + (values[i] * (high - low)) / 255;
      if (look === "signed" && !this.signs.get(value < 0 ? -1 : 1)) continue;
      const at = 3 * values[i];
      context.fillStyle = `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
      const left = Math.round((this.x[i] - extent.x) * this.scale);
      const top = Math.round((this.y[i] - extent.y) * this.scale);
      const right = Math.round((this.x[i] + size - extent.x) * this.scale);
      const bottom = Math.round((this.y[i] + size - extent.y) * this.scale);
      context.fillRect(left, top, Math.max(1, right - left), Math.max(1, bottom - top));
    }
  }

  key(canvas) {
    const table = this.colours[this.layer.look];
    const context = canvas.getContext("2d");
    for (let i = 0; i < 256; i += 1) {
      context.fillStyle = `rgb(${table[3 * i]} ${table[3 * i + 1]} ${table[3 * i + 2]})`;
      context.fillRect((i * canvas.width) / 256, 0, canvas.width / 256 + 1, canvas.height);
    }
  }

  opacity(share) {
    this.canvas.style.opacity = share;
  }

  // The patch over a level-0 pixel; the last one drawn, where several overlap.
  at(x, y) {
    const size = this.view.patch_size;
    for (let i = this.x.length - 1; i >= 0; i -= 1) {
      if (x >= this.x[i] && x < this.x[i] + size && y >= this.y[i] && y < this.y[i] + size) return i;
    }
    return -1;
  }

  words(patch) {
    if (patch < 0 || !this.layer) return "";
    const { values, low, high } = this.layer;
    const value = low + (values[patch] * (high - low)) / 255;
    return `patch ${patch} at ${this.x[patch]}, ${this.y[patch]}: about ${Number(value.toPrecision(2))}`;
  }

  picture(patch) {
    return `${this.address}/patch.jpg?x=${this.x[patch]}&y=${this.y[patch]}&side=${this.view.patch_size}`;
  }

  fly(patch) {
    const size = this.view.patch_size;
    const square = this.rectangle({ x: this.x[patch], y: this.y[patch], width: size, height: size });
    if (!this.found) {
      this.found = document.createElement("div");
      this.found.className = "found";
      this.viewer.addOverlay({ element: this.found, location: square });
    } else this.viewer.updateOverlay(this.found, square);
    const around = new OpenSeadragon.Rect(square.x - 2 * square.width, square.y - 2 * square.height, 5 * square.width, 5 * square.height);
    this.viewer.viewport.fitBoundsWithConstraints(around);
    this.viewer.element.dataset.patch = patch;
  }
}
