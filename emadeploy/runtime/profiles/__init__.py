"""How each engine tells the time of its layers: a module per engine, with one public function, ``profile``."""
