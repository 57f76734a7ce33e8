"""The page to browse and listen: a catalogue in memory, and a server for one person's browser.

query    what the address asks for
catalog  answers it from columns in memory
sound    a clip's audio, and the outline of its waveform
server   pages, and the marks that listeners leave
"""
