"""Configure when to retrain, let the data drift, and see what the pipeline does.

python examples/retraining_configuration_example.py
"""

from tsclust_model import PipelineConfig, TimeSeriesClusteringPipeline, make_hospital

FEATURES = [
    "age",
    "heart_rate",
    "systolic_pressure",
    "temperature",
    "creatinine",
    "c_reactive_protein",
]


def main() -> None:
    # The patients' vital signs drift in the second half of the two years.
    hospital = make_hospital(3500, drift=4.0)
    past, coming = hospital.iloc[:1500], hospital.iloc[1500:]
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 30, "min_samples": 5},
        noise_threshold=0.25,  # more noise than this, and than in training, is drift
        expanding_window_size=2500,  # number of newest rows that a retrain reads
        promotion_margin=0.02,  # a challenger must save 2% of the champion's RMSE
        retrain_cooldown_batches=3,  # batches in which drift does not start another
    )
    pipeline = TimeSeriesClusteringPipeline(config, model_name="retraining-example")
    pipeline.fit_initial(past[FEATURES], past["length_of_stay_days"])
    for start in range(0, len(coming), 250):
        batch = coming.iloc[start : start + 250]
        before = pipeline.current_model_version
        result = pipeline.process_batch(batch[FEATURES], batch["length_of_stay_days"])
        line = f"noise {result.noise_ratio:.1%}"
        if pipeline.current_model_version != before:
            line += f", version {before} was replaced by {pipeline.current_model_version}"
        print(line)

    # The answer says which settings take effect now, and which at the next retrain.
    print(pipeline.update_configuration(PipelineConfig.preset("medical")))
    for advice in pipeline.diagnose_pipeline_health()["recommendations"]:
        print("-", advice)
    pipeline.close()


if __name__ == "__main__":
    main()
