foreach(file changes changes_damage changes_threads)
  pados_test(engine ${file} pados_changes)
endforeach()
